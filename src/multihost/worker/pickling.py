"""Pickles as a child reads and writes them: functions, arguments, results."""

import io
import pickle
from typing import Any

MAIN = b"__main__"


def load(data: bytes) -> tuple[Any, list[str] | None, bytes]:
    """What was pickled; arguments and settings of the program that did it, if they follow."""
    pickles = io.BytesIO(data)
    loaded = pickle.load(pickles)
    argv = pickle.load(pickles) if pickles.tell() < len(data) else None
    return loaded, argv, pickle.load(pickles) if pickles.tell() < len(data) else b""


def dumps(value: Any) -> bytes:
    """Pickle a result as the standard library does, but what came from ``__main__`` by value.

    A lambda of an imported module stays the error that it is there.
    """
    try:
        data = pickle.dumps(value, 5)
    except (Exception, SystemExit) as error:  # whatever users' reducers raise
        import cloudpickle

        data = cloudpickle.dumps(value, 5)
        if MAIN not in data:
            raise error from None
    else:
        if MAIN in data:
            import cloudpickle

            data = cloudpickle.dumps(value, 5)
    return data
