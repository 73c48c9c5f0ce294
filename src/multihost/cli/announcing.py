"""A worker that says on stderr how it stands with its server."""

from multihost.cli import render
from multihost.wire.message import Welcome
from multihost.worker.worker import Worker


class AnnouncingWorker(Worker):
    """A worker with a terminal: a line when it is connected, disconnected, told to stop."""

    _times_told = 0

    def connected(self, welcome: Welcome) -> None:
        """Say where, then go on."""
        queues = ", ".join(self.options.queues) or "every queue"
        render.tell(
            f"worker {self.name} is connected to {self.peer.url}: "
            f"{render.many(self.roster.slots, 'slot')}, {queues}"
        )
        super().connected(welcome)

    def disconnected(self, reason: str) -> None:
        """Say that it comes back by itself, then go on."""
        if not self._times_told:
            render.tell(
                f"worker {self.name} lost {self.peer.url} ({reason or 'it was closed'}); "
                "what runs goes on, and it comes back when the server does"
            )
        super().disconnected(reason)

    def told_to_stop(self) -> None:
        """Drain the first time, leave at once the second."""
        self._times_told += 1
        if self._times_told == 1:
            render.tell(
                f"worker {self.name} is draining: it finishes what runs, for at most "
                f"{render.duration(self.options.grace_s)}; once more gives it back at once"
            )
            self.drain()
        else:
            self.leave()
