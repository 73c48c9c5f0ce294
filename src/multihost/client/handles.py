"""Handles: objects that stand for something on the server and travel by reference.

A handle remembers which store its thing is in. Where it is unpickled (in a
task, in another program) it finds a client of that store: one that the process
has open, else the one that its environment names; a task's environment names
its worker's server.
"""

import secrets
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from multihost.client.arguments import text
from multihost.client.taker import Taker
from multihost.client.thread_taker import ThreadTaker
from multihost.errors import ConfigError

if TYPE_CHECKING:
    from multihost.client.calls import Calls
    from multihost.client.client import Client
    from multihost.runtime.config import Target

before_exit: list[Callable[[], None]] = []
"""What is done when a program ends in good order, before its clients say goodbye."""
UNNAMED = "~"
"""What names that nobody chose begin with; not for users' names."""


class Handle:
    """Base of all handles.

    Invariant: a thing without a name lives as long as its maker's session, or
    until its maker's handle is forgotten without ever having been pickled.
    """

    _client: "Client | None" = None
    _target: "Target | None" = None
    """Where to connect again in a forked process."""
    _store = b""
    _name = ""
    _is_own = False
    """Made here, unnamed, and known to nobody else."""

    def _attach(self, client: "Client | None", name: str | None) -> ThreadTaker:
        """Choose the client and the name; the calling thread's taker, to open the thing with."""
        if client is None:
            from multihost.client.client import shared_client

            client = shared_client()
        if name is not None and (not text("name", name) or name.startswith(UNNAMED)):
            raise ValueError(f"name={name!r}: a name is not empty and does not begin with ~")
        self._client, self._target = client, client.target
        self._store = client.session.store or b""
        self._name = name if name is not None else f"{UNNAMED}{secrets.token_hex(8)}"
        self._is_own = name is None
        return client.session.calls.threads.mine()

    @property
    def name(self) -> str | None:
        """The name by which strangers can find it; None when it has none."""
        return None if self._name.startswith(UNNAMED) else self._name

    def _calls(self) -> "Calls":
        return self._usable().session.calls

    def _taker(self) -> ThreadTaker:
        client = self._client
        if client is None or not client.is_usable:
            client = self._usable()
        return client.session.calls.threads.mine()

    def _usable(self) -> "Client":
        client = self._client
        if client is None or not client.is_usable:
            client = self._client = self._find_client()
        return client

    def _find_client(self) -> "Client":
        from multihost.client.client import client_of

        client = client_of(self._store, self._target)
        if client.session.store != self._store:
            raise ConfigError(
                f"{type(self).__name__} {self.name or ''} is in the store of another server than "
                f"{client.url}: connect() to its server in this process before it is used"
            )
        return client

    def _dropper(self) -> "Callable[[Taker], Coroutine[Any, Any, None]] | None":
        """What deletes it on the server."""
        return None

    def __getstate__(self) -> dict[str, Any]:
        self._is_own = False
        state = dict(self.__dict__)
        for key in ("_client", "_target", "_is_own"):
            state.pop(key, None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def __del__(self) -> None:
        client = self._client
        if self._is_own and client is not None and client.is_usable:
            dropper = self._dropper()
            if dropper is not None:
                client.session.calls.spawn(dropper)


def wait_of(block: bool, timeout: float | None) -> float | None:  # noqa: FBT001 - the standard library's way
    """Seconds that the server may wait; None: as long as it takes."""
    if not block:
        return 0.0
    return None if timeout is None else max(0.0, float(timeout))
