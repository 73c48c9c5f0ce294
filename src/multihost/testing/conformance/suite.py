"""The whole suite in one class, and the fixtures its parts share."""

from collections.abc import Callable, Iterator

import pytest

from multihost.store.base import Store
from multihost.testing.conformance.access import AccessTests
from multihost.testing.conformance.attempts import AttemptTests
from multihost.testing.conformance.decisions import DecisionTests
from multihost.testing.conformance.exchanges import ExchangeTests
from multihost.testing.conformance.keeping import KeepingTests
from multihost.testing.conformance.leases import LeaseTests
from multihost.testing.conformance.submits import SubmitTests
from multihost.testing.conformance.takers import TakerTests
from multihost.testing.conformance.transactions import TransactionTests
from multihost.testing.conformance.waiting import WaitingTests
from multihost.testing.owner import Owner


class StoreConformance(
    SubmitTests,
    LeaseTests,
    AttemptTests,
    WaitingTests,
    DecisionTests,
    KeepingTests,
    ExchangeTests,
    TakerTests,
    AccessTests,
    TransactionTests,
):
    """Every promise of ``multihost.store.base.Store``."""

    @pytest.fixture
    def opener(self) -> Callable[[], Store]:
        """How to open the store; a subclass overrides it."""
        raise NotImplementedError

    @pytest.fixture
    def owner(self, opener: Callable[[], Store]) -> Iterator[Owner]:
        """The owner of a new store."""
        owner = Owner(opener)
        yield owner
        owner.close()
