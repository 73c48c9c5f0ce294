"""The note by which a running server is found on its own machine.

It lies in the server's state directory, for its user alone, and is true as long as
the process lives that wrote it: who dies can't take it back.
"""

import json
import os
import sys
from pathlib import Path
from typing import NamedTuple

from multihost.runtime.files import write_file

SERVER_FILE = "server.json"
_STATE, _START = 0, 19
"""Places in what ``/proc`` tells of a process, after its name."""
_DEAD = ("Z", "X")


class ServerNote(NamedTuple):
    """What a running server tells this user's clients and workers on this machine."""

    url: str
    pid: int
    fingerprint: str | None = None
    """Of its certificate; None: there is no TLS."""
    host: str = "127.0.0.1"
    """The address that it listens on."""
    is_own: bool = True
    """Whether it made its certificate itself."""
    addresses: tuple[str, ...] = ()
    """Under which other machines reach it, if it was told; HOST or HOST:PORT."""
    socket: str | None = None
    """Where this machine reaches it without a network; None: nowhere."""
    born: int | None = None
    """When its process began, by the kernel's count: another one may get its number."""

    @property
    def is_true(self) -> bool:
        """Whether the server that wrote it is alive."""
        return _is_alive(self.pid, self.born)


def write_server_note(directory: Path, note: ServerNote) -> None:
    """Tell this user's clients and workers on this machine where the server is."""
    write_file(directory / SERVER_FILE, json.dumps(note._asdict()).encode(), mode=0o600)


def read_server_note(directory: Path) -> ServerNote | None:
    """What the server that keeps its state in ``directory`` tells, if it is running."""
    note = last_server_note(directory)
    return note if note is not None and note.is_true else None


def last_server_note(directory: Path) -> ServerNote | None:
    """What the last server in ``directory`` told, if it did not end well enough to take it back."""
    try:
        fields = json.loads((directory / SERVER_FILE).read_text())
        known = {name: fields[name] for name in ServerNote._fields if name in fields}
        return ServerNote(**known)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remove_server_note(directory: Path) -> None:
    """Take the note back, unless another server has written its own."""
    path = directory / SERVER_FILE
    try:
        if json.loads(path.read_text())["pid"] == os.getpid():
            path.unlink()
    except (OSError, ValueError, KeyError):
        return


def birth_of(pid: int) -> int | None:
    """When a process began, in ticks since the machine did; None where that is not told."""
    fields = _stat(pid)
    return None if fields is None else int(fields[_START])


def _is_alive(pid: int, born: int | None) -> bool:
    fields = _stat(pid)
    if fields is not None:
        # A dead process keeps its number until its parent has asked how it ended.
        return fields[_STATE] not in _DEAD and born in (None, int(fields[_START]))
    if sys.platform == "win32":
        import psutil

        return psutil.pid_exists(pid)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _stat(pid: int) -> list[str] | None:
    """What Linux tells of a process, from its state on; None elsewhere, and of none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()
