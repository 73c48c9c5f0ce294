"""A server whose machine's clock is set back while tasks wait for a time."""

import pytest

from multihost import Client
from multihost.testing import Cluster

CLOCK = """
import time

wall = time.time


def set_wall():
    try:
        with open({path!r}) as file:
            return wall() + float(file.read())
    except (OSError, ValueError):
        return wall()


time.time = set_wall
"""


@pytest.mark.timeout(60)
def test_a_delayed_task_does_not_wait_for_the_hour_that_comes_again(tmp_path):
    offset = tmp_path / "offset"
    (tmp_path / "sitecustomize.py").write_text(CLOCK.format(path=str(offset)))
    with (
        Cluster(workers=1, python_path=[str(tmp_path)]) as cluster,
        Client(cluster.url, cluster.key) as client,
    ):
        future = client.options(delay_s=1.0).submit(pow, 2, 5)
        client.submit(pow, 1, 1).result(timeout=20)  # the server has the other by now
        offset.write_text("-3600")
        assert future.result(timeout=20) == 32
        # What comes after it goes by the new time.
        assert client.options(delay_s=0.1).submit(pow, 3, 2).result(timeout=20) == 9
        assert "clock was set back by 3600 s" in cluster.log
