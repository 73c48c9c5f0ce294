"""Where a manager listens, and where it keeps its queues: a directory for each address."""

import errno
import os
import socket
import time
from multiprocessing import connection
from pathlib import Path
from typing import Any

from multihost.runtime import config
from multihost.runtime.address import bracket, is_loopback, is_wildcard

DIRECTORY = "managers"
LEAVING_S = 5.0
"""How long the manager of a killed program may take to let go of its address."""
RETRY_S = 0.05
EVERYWHERE = "0.0.0.0"  # noqa: S104 - what the user's '' means
TLS = "tls"
"""Third part of an address at which a manager is to speak TLS; then it is the fingerprint."""


def is_secured(address: Any) -> bool:
    """Whether TLS is spoken at a manager's address: it has a fingerprint, or is to get one."""
    return isinstance(address, tuple) and len(address) == 3  # noqa: PLR2004 - see ``TLS``


def bind(address: Any) -> socket.socket:
    """A socket bound to a manager's address, None for a fresh one; raises OSError.

    One that the manager of a killed program is about to leave is waited for.
    """
    if address is None:
        address = _fresh()
    family = getattr(socket, connection.address_type(address))  # type: ignore[attr-defined]
    place = state_of(address, address)
    deadline = time.monotonic() + LEAVING_S
    while True:
        listener = socket.socket(family)
        try:
            if os.name == "posix":
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(128)
        except OSError as error:
            listener.close()
            may_leave = error.errno == errno.EADDRINUSE and place is not None and place.exists()
            if not may_leave or time.monotonic() > deadline:
                text = (
                    f"can't listen at {address!r}: {error.strerror}; if a manager or "
                    "'multihost server --managers' is there already, use connect()"
                )
                raise OSError(error.errno, text) from None
            time.sleep(RETRY_S)
        else:
            return listener


def state_of(asked: Any, bound: Any) -> Path | None:
    """Where the queues of a manager are that asked for an address and got another.

    None where nobody could find them again: an address that was not asked for.
    """
    if not isinstance(asked, tuple) or asked[1] == 0:
        return None
    host, port = bound[:2]
    name = f"{host or EVERYWHERE}_{port}".replace(":", "-")
    return config.state_dir() / DIRECTORY / name


def realm_of(asked: Any, bound: Any) -> str | None:
    """What the names of a manager's queues begin with at a server that others use, too.

    A manager that is started again at its address finds its queues, another one has others.
    None where ``state_of`` is. Other machines have the addresses that mean "this machine", too.
    """
    if state_of(asked, bound) is None:
        return None
    host, port = bound[0] or EVERYWHERE, bound[1]
    own = f"@{socket.gethostname()}" if is_wildcard(host) or is_loopback(host) else ""
    return f"{bracket(host)}:{port}{own}"


def _fresh() -> Any:
    return connection.arbitrary_address(connection.default_family)  # type: ignore[attr-defined]
