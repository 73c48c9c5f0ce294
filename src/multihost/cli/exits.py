"""Exit codes: what they mean, and which error leads to which.

Scripts rely on them, so a code is never given another meaning.
"""

from enum import IntEnum

from multihost.errors import (
    AuthenticationError,
    ConfigError,
    ConnectionLost,
    MultihostError,
    NotAllowed,
    ServerNotFound,
    StoreError,
)


class Exit(IntEnum):
    """What a command of ``multihost`` ends with."""

    OK = 0
    FAILED = 1
    USAGE = 2
    CANCELLED = 3
    UNREACHABLE = 4
    KEY = 5
    SERVER = 6
    TIMEOUT = 124
    INTERRUPTED = 130


MEANINGS = {
    Exit.OK: "done; of 'wait': the job succeeded",
    Exit.FAILED: "it failed; of 'wait': a task of the job failed",
    Exit.USAGE: "wrong usage or configuration, or no such job, task or queue",
    Exit.CANCELLED: "of 'wait': the job was cancelled",
    Exit.UNREACHABLE: "no server answers, or none is known",
    Exit.KEY: "the key is not the server's, or may not do that; or the certificate is another",
    Exit.SERVER: "the server can't start, or its store failed",
    Exit.TIMEOUT: "of 'wait': --timeout is over, the job goes on",
    Exit.INTERRUPTED: "interrupted with Ctrl-C",
}


class CommandError(MultihostError):
    """A command can't do what it was asked; ``exit_code`` is what it ends with."""

    fields = ("exit_code",)
    exit_code: Exit | None


def exit_for(error: BaseException) -> Exit:
    """The exit code that tells ``error`` to a script."""
    if isinstance(error, CommandError):
        return error.exit_code or Exit.FAILED
    for kind, code in (
        (AuthenticationError, Exit.KEY),
        (NotAllowed, Exit.KEY),
        (ServerNotFound, Exit.UNREACHABLE),
        (ConnectionLost, Exit.UNREACHABLE),
        (ConfigError, Exit.USAGE),
        (StoreError, Exit.SERVER),
        (KeyboardInterrupt, Exit.INTERRUPTED),
    ):
        if isinstance(error, kind):
            return code
    return Exit.FAILED
