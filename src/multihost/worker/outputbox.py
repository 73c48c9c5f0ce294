"""What tasks print, on its way to the server."""

from typing import Protocol

import msgspec

from multihost.wire import message as m
from multihost.worker.options import TASK_OUTPUT_BYTES, UNSENT_OUTPUT_BYTES
from multihost.worker.slot import Slot
from multihost.worker.work import Work

LOST_NOTICE = b"\n[multihost: what was printed from here on, while the server was away, is lost]\n"
LIMIT_NOTICE = b"\n[multihost: output beyond 1 MiB is not kept]\n"


class Sender(Protocol):
    """The connection, as far as output needs it."""

    @property
    def is_connected(self) -> bool:
        """Whether messages can be sent right now."""
        ...

    @property
    def is_writable(self) -> bool:
        """Whether it takes more bytes."""
        ...

    def send(self, message: m.Message) -> None:
        """Send a message."""
        ...


class OutputBox:
    """What tasks print: sent at once, kept for a while when there is no connection.

    Invariant: its memory is bounded. Without a connection so much is kept and no more; one
    that takes no more bytes has the children wait that print.
    """

    def __init__(self, peer: Sender) -> None:
        """Send through ``peer``."""
        self._peer = peer
        self._unsent: list[m.Output] = []
        self._left_bytes = UNSENT_OUTPUT_BYTES
        self._paused: set[Slot] = set()
        """Whose output waits for the connection to take it."""

    def take(self, slot: Slot, work: Work, stream: int, data: bytes) -> None:
        """Pass on what a task printed, up to a limit; a process may go on for ever."""
        left = TASK_OUTPUT_BYTES - work.output_bytes
        if work.is_revoked or left < 0:
            return
        if not work.is_process:
            work.output_bytes += len(data)
            if len(data) > left:
                data = data[:left] + LIMIT_NOTICE
        self.add(m.Output(work.grant.task, work.grant.token, stream, data))
        if self._peer.is_connected and not self._peer.is_writable:
            self._paused.add(slot)
            slot.pause_output()

    def add(self, message: m.Output) -> None:
        """Send it; or keep it, as long as there is room."""
        if self._peer.is_connected:
            self._peer.send(message)
        elif self._left_bytes > 0:
            self._left_bytes -= len(message.data)
            if self._left_bytes <= 0:
                message = msgspec.structs.replace(message, data=message.data + LOST_NOTICE)
            self._unsent.append(message)

    def send_again(self) -> None:
        """There is a connection again: send what was kept."""
        unsent, self._unsent = self._unsent, []
        self._left_bytes = UNSENT_OUTPUT_BYTES
        for message in unsent:
            self._peer.send(message)

    def resume(self) -> None:
        """The connection takes more bytes, or is gone: let the children go on."""
        paused, self._paused = self._paused, set()
        for slot in paused:
            slot.resume_output()

    def forget(self, slot: Slot) -> None:
        """Its child is gone."""
        self._paused.discard(slot)
