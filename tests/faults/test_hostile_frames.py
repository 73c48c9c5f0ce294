"""Hostile frames, a few of them: ``hostile_frames.py`` sends a million."""

import pytest
from hostile_frames import fuzz_readers, fuzz_server

from multihost.testing import Cluster

SEED = 4


def test_what_is_read_is_a_message_or_an_error_that_says_why():
    fuzz_readers(20_000, SEED)


@pytest.mark.timeout(120)
def test_a_live_server_answers_others_keeps_its_memory_and_fails_nowhere():
    with Cluster(workers=0) as cluster:
        report = fuzz_server(cluster, 5_000, SEED)
    assert report.errors == []
    assert report.frames >= 5_000
    assert report.refused > 0
    assert report.done_beside > 0
    assert report.grown_bytes < 64 << 20
