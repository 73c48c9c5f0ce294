"""What every store has to do, as tests: subclass ``StoreConformance`` and say how to open one.

    class TestMyStore(StoreConformance):
        @pytest.fixture
        def opener(self, tmp_path):
            return lambda: open_my_store(tmp_path / "store")

``opener`` is called again to reopen the store after it was closed. After each
transaction the suite also asks the store to ``verify`` itself.
"""

import pytest

pytest.register_assert_rewrite(
    "multihost.testing.conformance.access",
    "multihost.testing.conformance.attempts",
    "multihost.testing.conformance.decisions",
    "multihost.testing.conformance.exchanges",
    "multihost.testing.conformance.keeping",
    "multihost.testing.conformance.leases",
    "multihost.testing.conformance.submits",
    "multihost.testing.conformance.takers",
    "multihost.testing.conformance.transactions",
    "multihost.testing.conformance.waiting",
)

from multihost.testing.conformance.suite import StoreConformance  # noqa: E402 - after the line above

__all__ = ["StoreConformance"]
