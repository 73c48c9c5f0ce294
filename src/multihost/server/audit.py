"""The audit trail: a line for each refused and each administrative act, never a secret.

What others chose (names) is written so that it stays within its line. The same
refusal over and over is counted, so that nobody fills a disk by being refused.
"""

import asyncio
import logging
import sys
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime

from multihost.runtime import clock
from multihost.server.admission import group_of
from multihost.store.access import AccessKey

LOGGER = "multihost.audit"
LINES = 10
"""Lines a minute for the same refusal of the same address; the rest is counted."""
WINDOW_S = 60.0
MAX_COUNTS = 1_000
"""Refusals that are counted apart."""

_log = logging.getLogger(LOGGER)
_log.addHandler(logging.NullHandler())  # who embeds a server decides where the lines go
Entry = tuple[str, str, str]
"""Address, key and what, of a refusal that may come again."""


class Audit:
    """Writes the lines. ``multihost server`` sends them to its stderr."""

    def __init__(self) -> None:
        """Begin with a clean record."""
        self._counts: OrderedDict[Entry, _Count] = OrderedDict()

    def did(self, address: str, key: AccessKey | None, what: str) -> None:
        """An administrative act was done."""
        _log.info("%s", _line("done", address, key, what))

    def refused(self, address: str, key: AccessKey | None, what: str) -> None:
        """An act was refused; ``key`` None: nobody has proved one."""
        entry = group_of(_host_of(address)), "" if key is None else key.id, what
        count = self._counts.get(entry) or self._begin(entry, key)
        count.number += 1
        if count.number <= LINES:
            _log.warning("%s", _line("refused", address, key, what))

    def _begin(self, entry: Entry, key: AccessKey | None) -> "_Count":
        if len(self._counts) >= MAX_COUNTS:
            self._end(next(iter(self._counts)))
        timer = asyncio.get_running_loop().call_later(WINDOW_S, self._end, entry)
        count = self._counts[entry] = _Count(key, timer)
        return count

    def _end(self, entry: Entry) -> None:
        count = self._counts.pop(entry)
        count.timer.cancel()
        more = count.number - LINES
        if more > 0:
            address, _, what = entry
            text = f"{what} ({more} more times within {WINDOW_S:g} s)"
            _log.warning("%s", _line("refused", address, count.key, text))


@dataclass(slots=True)
class _Count:
    """How often something was refused to somebody."""

    key: AccessKey | None
    timer: asyncio.TimerHandle
    number: int = 0


def write_to_stderr() -> None:
    """Have the lines written to this process's stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    _log.addHandler(handler)
    _log.setLevel(logging.INFO)
    _log.propagate = False


def _line(event: str, address: str, key: AccessKey | None, what: str) -> str:
    at = datetime.fromtimestamp(clock.wall(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    who = "key=? name=?" if key is None else f"key={key.id} name={_quoted(key.name)}"
    return f"{at} audit {event} address={address} {who} what={_quoted(what)}"


def _quoted(text: str) -> str:
    """Text in quotes, on one line whatever is in it."""
    inner = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else ascii(c)[1:-1] for c in inner) + '"'


def _host_of(address: str) -> str:
    host, _, port = address.rpartition(":")
    return host.strip("[]") if port.isdecimal() and host else address
