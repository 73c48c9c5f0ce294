"""The tasks as a Celery application, for its worker and for ``outside``."""

import os
from collections.abc import Callable
from typing import Any

import work
from celery import Celery
from outside import REDIS_VARIABLE

_URL = os.environ[REDIS_VARIABLE]
app = Celery("celery_tasks", broker=_URL, backend=_URL)
app.conf.update(task_serializer="pickle", result_serializer="pickle", accept_content=["pickle"])
_TASKS: dict[Any, Any] = {function: app.task(function) for function in (work.tiny, work.rotate)}


def submit(function: Callable[[Any], Any], argument: Any) -> Any:
    """Submit one call."""
    return _TASKS[function].delay(argument)


def gather(handles: list[Any]) -> list[Any]:
    """Results of submitted calls, in order."""
    return [handle.get() for handle in handles]
