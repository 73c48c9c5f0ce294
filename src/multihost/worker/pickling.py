"""Pickles as a child reads and writes them: functions, arguments, results."""

import io
import pickle
from typing import Any, NamedTuple

MAIN = b"__main__"


class Loaded(NamedTuple):
    """What was pickled, and what follows it of the program that did it."""

    thing: Any
    argv: list[str] | None
    settings: bytes
    main: bytes
    """Definitions, for ``mainspace.learn``."""


def load(data: bytes) -> Loaded:
    """The pickles, as many as there are."""
    pickles = io.BytesIO(data)
    found: list[Any] = [pickle.load(pickles)]
    while pickles.tell() < len(data):
        found.append(pickle.load(pickles))
    return Loaded(*found, *(None, b"", b"")[len(found) - 1 :])


def dumps(value: Any) -> bytes:
    """Pickle a result as the standard library does, but what came from ``__main__`` by value.

    A lambda of an imported module stays the error that it is there.
    """
    try:
        data = pickle.dumps(value, 5)
    except (Exception, SystemExit) as error:  # whatever users' reducers raise
        from multihost import byvalue

        data = byvalue.dumps(value)
        if MAIN not in data:
            raise error from None
    else:
        if MAIN in data:
            from multihost import byvalue

            data = byvalue.dumps(value)
    return data
