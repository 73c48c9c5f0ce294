"""Read models: what listings, the page and scripts show of the store.

Plain dicts with the words of the glossary, times as seconds since the epoch,
durations in seconds. The store is asked through the committer, between
transactions, for a page at a time.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import msgspec

from multihost.core.ids import index_of, task_id, task_name
from multihost.core.outcome import decode_failure
from multihost.core.resources import Offer
from multihost.core.state import JobState, TaskState
from multihost.runtime import clock
from multihost.server.services import Services
from multihost.server.shared import Shared
from multihost.store.base import (
    AttemptRow,
    JobRow,
    QueueRow,
    SessionRow,
    Store,
    TaskRow,
)
from multihost.wire.message import Child, Role

Row = dict[str, Any]


class Views:
    """Answers questions about jobs, tasks, queues and workers; and the few verbs of people."""

    def __init__(self, services: Services) -> None:
        """Read through the committer of ``services``."""
        self._services = services
        self._ends: dict[int, set[asyncio.Future[None]]] = {}
        self.on_deleted: Callable[[], None] = lambda: None
        self.shared = Shared(services)

    # jobs ----------------------------------------------------------------------------

    async def jobs(self, state: str | None, before: int | None, limit: int) -> list[Row]:
        """Newest jobs first; ValueError for a state that does not exist."""
        wanted = _state(JobState, state)
        rows: list[JobRow] = await self._ask(
            lambda store, _: store.jobs(state=wanted, before=before, limit=limit)
        )
        return [_job(row) for row in rows]

    async def job(self, name: str) -> Row | None:
        """A job by number or name, with why it waits."""
        row: JobRow | None = await self._ask(lambda store, _: _find(store, name))
        if row is None:
            return None
        shown = _job(row)
        if row.queued and not row.running:
            shown["waits"] = self._services.why_waiting(row.spec.queue, row.spec.requires)
        return shown

    async def tasks(self, name: str, state: str | None, after: int, limit: int) -> list[Row] | None:
        """Tasks of a job by index."""
        wanted = _state(TaskState, state)

        def read(store: Store, _: float) -> list[TaskRow] | None:
            row = _find(store, name)
            if row is None:
                return None
            return store.tasks(row.number, state=wanted, after_index=after, limit=limit)

        rows: list[TaskRow] | None = await self._ask(read)
        return None if rows is None else [_task(row) for row in rows]

    async def task(self, job: int, index: int) -> Row | None:
        """A task with its attempts that went wrong and what it printed."""
        number = task_id(job, index)

        def read(store: Store, _: float) -> tuple[Any, ...]:
            return store.task(number), store.attempts(number), store.output(number)

        row, attempts, output = await self._ask(read)
        if row is None:
            return None
        text = b"".join(data for _, data in output).decode(errors="replace")
        return {**_task(row), "attempts": [_attempt(a) for a in attempts], "output": text}

    async def wait_for_end(self, number: int, wait_s: float) -> None:
        """Return when the job has ended or ``wait_s`` are over."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._ends.setdefault(number, set())
        waiting.add(future)
        row: JobRow | None = await self._ask(lambda store, _: store.job(number))
        with contextlib.suppress(TimeoutError):
            if row is not None and not row.state.is_final:
                await asyncio.wait_for(future, wait_s)
        waiting.discard(future)
        if not waiting:
            self._ends.pop(number, None)

    def ended(self, row: JobRow) -> None:
        """A job has ended: wake who waits for it."""
        for future in self._ends.pop(row.number, ()):
            if not future.done():
                future.set_result(None)

    async def cancel(self, name: str, indices: list[int] | None) -> Row | None:
        """Cancel a job or some of its tasks."""

        def run(store: Store, now: float) -> Any:
            row = _find(store, name)
            if row is None:
                return None
            return row.number, store.cancel(row.number, indices, only_queued=False, now=now)

        found = await self._ask(run, is_durable=True)
        if found is None:
            return None
        number, cancelled = found
        self._services.cancelled(cancelled)
        return {"job": number, "cancelled": len(cancelled.finals)}

    async def delete(self, name: str) -> Row | None:
        """Delete an ended job; ValueError when it has not ended."""

        def run(store: Store, _: float) -> Any:
            row = _find(store, name)
            return None if row is None else (row.number, store.delete_job(row.number))

        found = await self._ask(run, is_durable=True)
        if found is None:
            return None
        number, refusal = found
        if refusal is not None:
            raise ValueError(refusal.message)
        self.on_deleted()
        return {"job": number, "deleted": True}

    async def retry(self, name: str, indices: list[int] | None) -> Row | None:
        """Queue failed or cancelled tasks of a job again."""

        def run(store: Store, now: float) -> Any:
            row = _find(store, name)
            return None if row is None else (row.number, store.retry(row.number, indices, now))

        found = await self._ask(run, is_durable=True)
        return None if found is None else {"job": found[0], "retried": found[1]}

    # queues and workers -----------------------------------------------------------------

    async def queues(self) -> list[Row]:
        """Every queue with its counts."""
        rows: list[QueueRow] = await self._ask(lambda store, _: store.queues())
        return [
            {"queue": row.name, "of": "tasks", **_without(msgspec.to_builtins(row), "name")}
            for row in rows
        ]

    async def set_queue(self, name: str, *, is_paused: bool | None, limit: int | None) -> None:
        """Pause or resume a queue, or bound its length."""

        def run(store: Store, _: float) -> frozenset[str]:
            store.set_queue(name, is_paused=is_paused, limit=limit)
            return store.paused_queues()

        self._services.paused = await self._ask(run, is_durable=True)

    async def workers(self, *, is_gone: bool = False) -> list[Row]:
        """Every worker whose session is open; or those whose session was closed, for a day."""
        rows: list[SessionRow] = await self._ask(
            lambda store, _: store.sessions(Role.WORKER, is_open=not is_gone)
        )
        peers, now = self._services.worker_peers, clock.wall()
        children = {number: peer.children for number, peer in peers.items()}
        return [_worker(row, now, children.get(row.number)) for row in rows]

    def installed(self) -> list[Row]:
        """What the connected workers have told of their Python, packages and seal."""
        return [
            {"worker": peer.name, "host": peer.host, **msgspec.structs.asdict(peer.installed)}
            for peer in self._services.worker_peers.values()
            if peer.installed is not None
        ]

    def _ask(self, run: Any, *, is_durable: bool = False) -> Any:
        return self._services.committer.ask(run, is_durable=is_durable, only_reads=not is_durable)


def _find(store: Store, name: str) -> JobRow | None:
    return store.job(int(name)) if name.isdecimal() else store.find_job(name)


def _job(row: JobRow) -> Row:
    spec = row.spec
    return {
        "job": row.number,
        "name": spec.name,
        "label": spec.label,
        "state": _job_word(row),
        "user": spec.user,
        "queue": spec.queue,
        "priority": spec.priority,
        "created_at": row.created_at,
        "ended_at": row.ended_at,
        "tasks": row.count,
        "total": row.total,
        "blocked": row.blocked,
        "queued": row.queued,
        "running": row.running,
        "succeeded": row.succeeded,
        "failed": row.failed,
        "cancelled": row.cancelled,
    }


def _job_word(row: JobRow) -> str:
    """A job's state in one word; of an open one, that of its liveliest tasks."""
    if row.state.is_final:
        return row.state.name.lower()
    for word in ("running", "queued", "blocked"):
        if getattr(row, word):
            return word
    return "open"


def _task(row: TaskRow) -> Row:
    return {
        "task": task_name(row.task),
        "index": index_of(row.task),
        "state": row.state.name.lower(),
        "errors": row.errors,
        "crashes": row.crashes,
        "losses": row.losses,
        "worker": row.session,
        "due_at": row.due_at,
    }


def _attempt(row: AttemptRow) -> Row:
    failure = decode_failure(row.failure) if row.failure else None
    return {
        "ending": row.ending.name.lower(),
        "worker": row.session,
        "ended_at": row.ended_at,
        "error": failure.type_name if failure else "",
        "message": failure.message if failure else "",
        "traceback": failure.traceback if failure else "",
        "certificates": [msgspec.to_builtins(c) for c in failure.certificates] if failure else [],
    }


def _worker(row: SessionRow, now: float, children: list[Child] | None) -> Row:
    info = row.info
    offer = msgspec.msgpack.decode(info.offer, type=Offer) if info.offer else Offer()
    return {
        "worker": info.name,
        "session": row.number,
        "host": info.host,
        "pid": info.pid,
        "slots": info.slots,
        "running": row.running,
        "queues": list(info.queues),
        "python": offer.python,
        "tags": list(offer.tags),
        "connected": children is not None,
        "children": [msgspec.structs.asdict(child) for child in children or ()],
        "since_s": max(0.0, now - row.opened_at),
    }


def _state(kind: type[Any], word: str | None) -> Any:
    if word is None:
        return None
    try:
        return kind[word.upper()]
    except KeyError:
        words = ", ".join(member.name.lower() for member in kind)
        raise ValueError(f"there is no state {word!r}; there are: {words}") from None


def _without(row: Row, name: str) -> Row:
    return {key: value for key, value in row.items() if key != name}
