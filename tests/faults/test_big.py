"""Four gigabytes in and out past limited memory: ``tests/bench/big.py`` as a test.

It takes minutes, twelve gigabytes of memory and eight of disk, so it runs only where
``MULTIHOST_BIG`` asks for it; ``tests/integration/test_big_things.py`` has the same in small.
"""

import os
import sys
from pathlib import Path

import psutil
import pytest

BENCH = Path(__file__).parent.parent / "bench"
SIZE = 4 << 30
NEEDED = 3 * SIZE

pytestmark = [
    pytest.mark.skipif("MULTIHOST_BIG" not in os.environ, reason="for campaigns; see above"),
    pytest.mark.timeout(1200),
]


def test_four_gib_pass_in_and_out_through_a_server_and_an_agent_of_half_a_gib(monkeypatch):
    if psutil.virtual_memory().available < NEEDED:
        pytest.skip(f"needs {NEEDED >> 30} GiB of free memory for the client and the child")
    monkeypatch.syspath_prepend(str(BENCH))
    import big

    figures = big.measure(SIZE, big.LIMIT_BYTES)
    print(figures, file=sys.__stdout__)
    assert figures.server_mib < big.LIMIT_BYTES >> 20
    assert figures.agent_mib < big.LIMIT_BYTES >> 20
