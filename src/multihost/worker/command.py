"""Runs a command line as a task; what it prints goes where a task's prints go."""

import subprocess
from typing import Any

import msgspec

from multihost.core.outcome import Ending, Failure, encode_failure


def run_command(data: bytes) -> tuple[int, bytes]:
    """Ending and payload: the pickled exit code, or the failure to start it at all.

    ``data`` is a msgpack map with ``argv`` and perhaps ``env``, ``cwd``, ``stdin``.
    """
    import os
    import pickle

    call: dict[str, Any] = msgspec.msgpack.decode(data)
    environment = {**os.environ, **(call.get("env") or {})}
    try:
        done = subprocess.run(
            call["argv"],
            env=environment,
            cwd=call.get("cwd") or None,
            input=call.get("stdin") or b"",
            check=False,
        )
    except OSError as error:
        text = f"can't run {call['argv'][0]!r}: {error.strerror}"
        failure = Failure(Ending.UNRUNNABLE, type(error).__name__, text)
        return Ending.UNRUNNABLE, encode_failure(failure)
    return Ending.OK, pickle.dumps(done.returncode)
