"""A child whose agent is gone, with the test as that agent: it ends, whatever it was doing."""

import os
import subprocess
import sys
import time
from pathlib import Path

import cloudpickle
import pytest
from lone_worker import by_value

from multihost.testing import wait_until
from multihost.worker import frames

pytestmark = pytest.mark.timeout(60)


class Agent:
    """The other ends of a child's pipes; ``life`` stays open, as where the kernel ends nothing."""

    def __init__(self, directory):
        task_read, self.tasks = os.pipe()
        self.outcomes, outcome_write = os.pipe()
        control_read, self.control = os.pipe()
        life_read, self.life = os.pipe()
        theirs = (task_read, outcome_write, control_read, life_read)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "multihost.worker", *map(str, theirs), str(directory), "1"],
            stdin=subprocess.DEVNULL,
            pass_fds=theirs,
            start_new_session=True,
        )
        for descriptor in theirs:
            os.close(descriptor)

    def run(self, function, *arguments):
        payload = cloudpickle.dumps((arguments, {}))
        parts = frames.task_parts((1, 1), "call", bytes(32), by_value(function), payload)
        os.writev(self.tasks, parts)


@pytest.fixture
def agent(tmp_path):
    agent = Agent(tmp_path)
    yield agent
    agent.process.kill()
    agent.process.wait()
    os.close(agent.life)


def until_there(path):
    Path(f"{path}.begun").touch()
    while not Path(path).exists():
        time.sleep(0.005)


def test_a_busy_child_ends_with_its_agent(agent, tmp_path):
    agent.run(until_there, str(tmp_path / "never"))
    wait_until((tmp_path / "never.begun").exists)
    for descriptor in (agent.tasks, agent.outcomes, agent.control):
        os.close(descriptor)
    assert agent.process.wait(20) != 0


def test_a_busy_child_ends_with_an_agent_that_had_just_asked_something(agent, tmp_path):
    # The answer finds nobody, and that must not be all that the child makes of it.
    agent.run(until_there, str(tmp_path / "never"))
    wait_until((tmp_path / "never.begun").exists)
    os.close(agent.outcomes)
    os.write(agent.control, frames.pack(frames.GIVE_BACK))
    os.close(agent.control)
    os.close(agent.tasks)
    assert agent.process.wait(20) != 0
