"""The order in which several processes of pytest-xdist share the tests out.

`--dist loadfile` gives a whole file to one process, and files of many tests first: those with
a handful of tests that take a minute each come last, one process then goes through
them, and the other cores look on. Here what takes long comes first, what computes beside
what waits, and any process may take any test of a file whose tests share nothing.
"""

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

LONG = (
    "tests/cpython/test_cpython.py",
    "tests/property/test_store_crash.py",
    "tests/integration/test_managers_server.py",
    "tests/integration/test_hostile_sessions.py",
    "tests/faults/test_kills.py",
    "tests/integration/test_process_embedded.py",
    "tests/integration/test_process_cluster.py",
    "tests/scenario/test_scenarios.py",
    "tests/scenario/test_joining.py",
    "tests/faults/test_queue_kills.py",
    "tests/integration/test_managers_recipes.py",
    "tests/integration/test_managers_kills.py",
    "tests/property/test_store_model.py",
    "tests/integration/test_bench.py",
    "tests/property/test_store_items.py",
    "tests/integration/test_worker_leaving.py",
    "tests/integration/test_demo.py",
    "tests/integration/test_queues_cluster.py",
    "tests/integration/test_calls_cluster.py",
    "tests/integration/test_cli_server.py",
    "tests/integration/test_big_things.py",
    "tests/integration/test_argv_cluster.py",
    "tests/scenario/test_links.py",
    "tests/integration/test_keys_cluster.py",
    "tests/integration/test_cli_listings.py",
    "tests/integration/test_sealing_cluster.py",
    "tests/integration/test_worker_mixture.py",
    "tests/integration/test_nested_cluster.py",
    "tests/faults/test_disk_full.py",
    "tests/integration/test_bad_links.py",
    "tests/integration/test_tls.py",
    "tests/integration/test_nearby.py",
    "tests/integration/test_synchronize_cluster.py",
    "tests/integration/test_managers_face.py",
    "tests/conformance/test_sqlite.py",
    "tests/integration/test_pool_cluster.py",
    "tests/integration/test_pool_embedded.py",
    "tests/property/test_synchronizers_random.py",
)
"""What takes more than some seconds; what is not named comes after it."""
APART = frozenset(
    {
        "tests/cpython/test_cpython.py",
        "tests/faults/test_disk_full.py",
        "tests/faults/test_kills.py",
        "tests/faults/test_queue_kills.py",
        "tests/integration/test_demo.py",
        "tests/property/test_store_items.py",
    }
)
"""Files whose tests are shared out one by one."""
_PLACES = {path: place for place, path in enumerate(LONG)}


def place_of(nodeid: str) -> int:
    """What to sort tests by."""
    return _PLACES.get(nodeid.partition("::")[0], len(_PLACES))


class LongestFirst(LoadScopeScheduling):
    """Shares out files, or tests alone, in the order in which they were collected."""

    def __init__(self, config: pytest.Config, log: Producer | None = None) -> None:
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return nodeid if path in APART else path
