"""The SQLite store keeps every promise of a store."""

from collections.abc import Callable
from pathlib import Path

import pytest

from multihost.store.base import Store
from multihost.store.sqlite import open_store
from multihost.testing.conformance import StoreConformance


class TestSQLite(StoreConformance):
    @pytest.fixture
    def opener(self, tmp_path: Path) -> Callable[[], Store]:
        return lambda: open_store(tmp_path / "store.sqlite")


class TestSQLiteThatRemembersLittle(StoreConformance):
    """Jobs are forgotten after each transaction, so all is read back from the file."""

    @pytest.fixture
    def opener(self, tmp_path: Path) -> Callable[[], Store]:
        return lambda: open_store(tmp_path / "store.sqlite", cached_jobs=0)
