"""The model keeps every promise of a store, so comparing a store with it means something."""

from collections.abc import Callable

import pytest

from multihost.store.base import Store
from multihost.testing.conformance import StoreConformance
from multihost.testing.model import ModelDisk, ModelStore


class TestModel(StoreConformance):
    @pytest.fixture
    def opener(self) -> Callable[[], Store]:
        disk = ModelDisk()
        return lambda: ModelStore(disk)
