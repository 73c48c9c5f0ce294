"""The model's verbs for what is kept: results, sessions, blobs, output, settings."""

import msgspec

from multihost.core.ids import (
    index_of,
)
from multihost.core.job import DAY_S
from multihost.store.access import AccessKey
from multihost.store.base import Refusal, SessionInfo
from multihost.testing.model.data import BlobData, Session
from multihost.testing.model.listings import Listings
from multihost.wire.message import Blob, Held, RefusalCode


class Keeping(Listings):
    """Take, prune, and what lies beside jobs and tasks."""

    def take(self, job: int, upto: int) -> int:
        """Drop ended tasks of a transient job below index ``upto``."""
        it = self._data.jobs.get(job)
        if it is None or not it.spec.is_transient or upto < 1:
            return 0
        upto = min(upto, it.next_index)
        it.taken = max(it.taken, upto)
        gone = [
            task for task in self._of(job, -1) if task.state.is_final and index_of(task.id) < upto
        ]
        for task in gone:
            it.dropped[task.state] += 1
            del self._data.tasks[task.id]
        return len(gone)

    def delete_job(self, job: int) -> Refusal | None:
        """Delete an ended job before its retention is over."""
        it = self._data.jobs.get(job)
        is_over = all(task.state.is_final for task in self._of(job, -1))
        if it is None or it.ended_at is None or not is_over:
            text = f"job {job} does not exist, or has not ended"
            return Refusal(RefusalCode.BAD_REQUEST, text)
        self._drop(job)
        return None

    def _drop(self, job: int) -> None:
        for task in self._of(job, -1):
            del self._data.tasks[task.id]
        del self._data.jobs[job]

    def prune(self, now: float, limit: int) -> int:
        """Delete ended jobs past their retention, and what is not used any more."""
        data, gone = self._data, 0
        for number, job in list(data.jobs.items()):
            if job.ended_at is not None and job.ended_at + job.spec.retention_s <= now:
                self._drop(number)
                gone += 1
        used = {job.lane for job in data.jobs.values()}
        gone += data.keep_lanes(used)
        owners = {job.owner for job in data.jobs.values()}
        for number, session in list(data.sessions.items()):
            is_old = session.closed_at is not None and session.closed_at <= now - DAY_S
            if is_old and number not in owners and not self._held_by(number):
                del data.sessions[number]
                gone += 1
        return gone

    def open_session(self, info: SessionInfo, now: float) -> int | None:
        """Number of the session with this uid, new or reopened; None: it is another's."""
        for number, session in self._data.sessions.items():
            if session.info.uid == info.uid:
                if not info.may_reopen(session.info):
                    return None
                session.info, session.closed_at = info, None
                return number
        self._data.last_session += 1
        self._data.sessions[self._data.last_session] = Session(info, now)
        return self._data.last_session

    def close_session(self, session: int, now: float) -> None:
        """The session ended."""
        it = self._data.sessions.get(session)
        if it is not None and it.closed_at is None:
            it.closed_at = now

    def put_blob(self, blob: Blob, data: bytes | None, now: float) -> None:
        """Note a blob."""
        known = self._data.blobs.get(blob.digest)
        if known is None:
            self._data.blobs[blob.digest] = BlobData(blob.size_bytes, data, now)
        else:
            known.touched_at = now

    def why_no_blob(self, session: int, size_bytes: int) -> str | None:
        """None: the model has room for everything."""

    def unused_blobs(self, before: float, limit: int) -> list[Blob]:
        """Delete and return blobs that nothing refers to and that are older than ``before``."""
        references = self._count_references()
        unused = [
            Blob(digest, it.size_bytes)
            for digest, it in self._data.blobs.items()
            if digest not in references and it.touched_at < before
        ][:limit]
        for blob in unused:
            del self._data.blobs[blob.digest]
        return unused

    def append_output(
        self, session: int, held: Held, stream: int, data: bytes, limit_bytes: int
    ) -> bool:
        """Keep what a running task printed, if it runs under that lease of ``session``."""
        it = self._data.tasks.get(held.task)
        if it is None or not it.is_run_by(session, held.token):
            return False
        it.output = (*it.output, (stream, data)) if data else it.output
        excess = sum(len(part) for _, part in it.output) - limit_bytes
        while excess > 0:
            (first_stream, part), *rest = it.output
            kept = part[excess:]
            it.output = ((first_stream, kept), *rest) if kept else tuple(rest)
            excess -= len(part) - len(kept)
        return True

    def set_queue(self, name: str, *, is_paused: bool | None, limit: int | None) -> None:
        """Pause or resume a queue, bound its length."""
        self._data.named_queues.add(name)
        if limit is not None:
            self._data.queue_limits[name] = limit
            if not limit:
                del self._data.queue_limits[name]
        if is_paused is not None:
            (self._data.paused.add if is_paused else self._data.paused.discard)(name)
        if is_paused is False:
            self.woken |= {lane.number for lane in self.lanes() if lane.queue == name}

    def add_access_key(self, key: AccessKey) -> None:
        """Keep a key."""
        self._data.access_keys[key.id] = key

    def revoke_access_key(self, key: str, now: float) -> bool:
        """The key is not taken any more."""
        known = self._data.access_keys.get(key)
        if known is None or known.revoked_at is not None:
            return False
        self._data.access_keys[key] = msgspec.structs.replace(known, revoked_at=now)
        return True

    def drop_access_keys(self, before: float) -> int:
        """Delete what ended before then."""
        ends = {key.id: key.ended_at for key in self._data.access_keys.values()}
        gone = [key for key, ended_at in ends.items() if ended_at is not None and ended_at < before]
        for key in gone:
            del self._data.access_keys[key]
        return len(gone)

    def access_keys(self) -> list[AccessKey]:
        """Every key, by when it was made, then by id."""
        keys = self._data.access_keys.values()
        return sorted(keys, key=lambda key: (key.created_at, key.id))
