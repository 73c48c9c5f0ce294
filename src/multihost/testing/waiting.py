"""Waiting for something to become true, with a deadline instead of a hope."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

STEP_S = 0.01


def wait_until(condition: Callable[[], T], what: str = "", timeout_s: float = 20.0) -> T:
    """Return the first true value of ``condition``; AssertionError after ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            message = f"not within {timeout_s:g} s: {what or condition}"
            raise AssertionError(message)
        time.sleep(STEP_S)
