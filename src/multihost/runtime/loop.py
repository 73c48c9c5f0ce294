"""Running the event loop: uvloop where there is one."""

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

from multihost.runtime.descriptors import fill_standard_descriptors
from multihost.runtime.spinning import spin_on

T = TypeVar("T")


def new_event_loop() -> asyncio.AbstractEventLoop:
    """A fast event loop for this platform."""
    if sys.platform == "win32":
        return asyncio.new_event_loop()
    import uvloop

    fill_standard_descriptors()
    return uvloop.new_event_loop()


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run ``main`` to its end on a new event loop, in a process that does nothing else."""
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        spin_on(runner.get_loop())
        return runner.run(main)
