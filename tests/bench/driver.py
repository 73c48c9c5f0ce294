"""One measurement of one entrant, in a process of its own: ``driver.py ENTRANT FIGURE COUNT``.

Prints one line of JSON. Whatever else a process carries along (another
entrant's threads, a heap full of results) would count against who comes next.
"""

import importlib
import json
import sys
from collections.abc import Callable
from typing import Any

ENTRANTS: dict[str, tuple[str, str]] = {
    "ours": ("ours", "OursEntrant"),
    "pool": ("pools", "standard_pool"),
    "managers": ("queue_pair", "QueuePairEntrant"),
    "celery": ("outside", "CeleryEntrant"),
    "dask": ("outside", "DaskEntrant"),
    "ray": ("outside", "RayEntrant"),
}
"""Module and maker of each entrant; imported only in its own process."""


def main() -> None:
    """Measure and print."""
    name, figure, count = sys.argv[1:]
    module, maker = ENTRANTS[name]
    entrant = getattr(importlib.import_module(module), maker)()
    measure: Callable[[int], dict[str, Any]] = getattr(entrant, figure)
    print(json.dumps(measure(int(count))))


if __name__ == "__main__":
    main()
