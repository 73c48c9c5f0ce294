"""Submitting: idempotent by uid, name and key; contradictions are told, never mixed."""
# ruff: noqa: PLR2004 - the numbers in a test are its example

from collections.abc import Sequence

from multihost.core.ids import MAX_INDEX, MAX_JOB
from multihost.core.outcome import Ending
from multihost.core.state import JobState
from multihost.store.base import Added, OpenedJob, Refusal
from multihost.testing.owner import Owner, make_spec
from multihost.wire.message import Blob, Held, Payload, RefusalCode


def refused(result: object, code: RefusalCode, indices: Sequence[int] = ()) -> bool:
    """Whether a verb refused for this reason, in words, and named these indices."""
    assert isinstance(result, Refusal), result
    assert result.message
    return result.code is code and result.indices == tuple(indices)


class SubmitTests:
    """Open, add, seal."""

    def test_a_new_job_is_open_and_empty(self, owner: Owner) -> None:
        opened = owner.open(label="f")
        assert opened.is_new
        assert (opened.count, opened.total, opened.state) == (0, None, JobState.OPEN)
        row = owner.store.job(opened.number)
        assert row is not None
        assert (row.spec, row.created_at, row.ended_at) == (opened.spec, owner.now, None)

    def test_the_same_uid_finds_the_same_job(self, owner: Owner) -> None:
        uid = owner.uid()
        first = owner.open(uid, label="first")
        owner.add(first.number, 3)
        again = owner.open(uid, label="second")
        assert not again.is_new
        assert (again.number, again.spec.label, again.count) == (first.number, "first", 3)

    def test_the_same_uid_twice_in_one_transaction_is_one_job(self, owner: Owner) -> None:
        uid = owner.uid()
        with owner.transaction() as store:
            first = store.open_job(uid, make_spec(name="n", unique_key="k"), None, owner.now)
            again = store.open_job(uid, make_spec(name="n", unique_key="k"), None, owner.now)
            third = store.open_job(
                owner.uid(), make_spec(name="n", unique_key="k"), None, owner.now
            )
        assert isinstance(first, OpenedJob)
        assert isinstance(again, OpenedJob)
        assert isinstance(third, OpenedJob)
        assert first.number == again.number == third.number
        assert [row.number for row in owner.store.jobs()] == [first.number]

    def test_a_name_finds_its_job_after_a_restart(self, owner: Owner) -> None:
        first = owner.open(name="run-7", fingerprint=b"f")
        owner.add(first.number, 2)
        owner.reopen()
        again = owner.open(name="run-7", fingerprint=b"f")
        assert (again.number, again.is_new, again.count) == (first.number, False, 2)
        found = owner.store.find_job("run-7")
        assert found is not None
        assert found.number == first.number
        assert owner.store.find_job("run-8") is None

    def test_a_name_with_another_function_is_refused(self, owner: Owner) -> None:
        owner.open(name="run-7", fingerprint=b"f")
        spec = make_spec(name="run-7", fingerprint=b"g")
        result = owner.do("open_job", owner.uid(), spec, None, owner.now)
        assert refused(result, RefusalCode.INPUT_CHANGED)

    def test_a_unique_key_attaches_and_another_function_conflicts(self, owner: Owner) -> None:
        first = owner.open(unique_key="nightly", fingerprint=b"f")
        assert owner.open(unique_key="nightly", fingerprint=b"f").number == first.number
        spec = make_spec(unique_key="nightly", fingerprint=b"g")
        result = owner.do("open_job", owner.uid(), spec, None, owner.now)
        assert refused(result, RefusalCode.KEY_CONFLICT)

    def test_a_name_and_a_key_of_different_jobs_conflict(self, owner: Owner) -> None:
        owner.open(name="a", unique_key="k")
        for spec in (make_spec(name="b", unique_key="k"), make_spec(name="a", unique_key="l")):
            result = owner.do("open_job", owner.uid(), spec, None, owner.now)
            assert refused(result, RefusalCode.KEY_CONFLICT)

    def test_a_unique_key_is_free_again_once_its_job_is_pruned(self, owner: Owner) -> None:
        first = owner.submit(0, unique_key="k", retention_s=10)
        owner.now += 9
        assert owner.open(unique_key="k").number == first
        owner.now += 1
        while owner.do("prune", owner.now, 100):
            pass
        again = owner.open(unique_key="k")
        assert again.is_new
        assert again.number > first

    def test_added_tasks_are_queued_and_counted(self, owner: Owner) -> None:
        job = owner.open()
        assert owner.add(job.number, 3) == Added(3)
        row = owner.store.job(job.number)
        assert row is not None
        assert (row.queued, row.count, row.total) == (3, 3, None)
        assert [task.task & MAX_INDEX for task in owner.store.tasks(job.number)] == [0, 1, 2]

    def test_adding_again_changes_nothing(self, owner: Owner) -> None:
        job = owner.open().number
        owner.add(job, 3)
        assert owner.add(job, [b"other"] * 4) == Added(1)
        leases = owner.lease(owner.worker())
        assert [lease.payload for lease in leases] == [
            b"payload 0",
            b"payload 1",
            b"payload 2",
            b"other",
        ]

    def test_adding_again_after_the_end_changes_nothing(self, owner: Owner) -> None:
        job = owner.submit(2)
        worker = owner.worker()
        owner.finish(worker, owner.lease(worker))
        assert owner.add(job, 2) == Added(0)
        assert owner.lease(worker) == []

    def test_parts_may_come_in_any_order(self, owner: Owner) -> None:
        job = owner.open().number
        assert owner.add(job, 2, first=4) == Added(2)
        assert owner.add(job, 5) == Added(4)
        row = owner.store.job(job)
        assert row is not None
        assert row.queued == 6

    def test_a_named_job_with_other_inputs_is_refused_and_they_are_named(
        self, owner: Owner
    ) -> None:
        job = owner.open(name="run").number
        owner.add(job, [b"a", b"b" * 5000, b"c"])
        result = owner.add(job, [b"a", b"x", b"y", b"d"])
        assert refused(result, RefusalCode.INPUT_CHANGED, [1, 2])
        row = owner.store.job(job)
        assert row is not None
        assert row.count == 3
        assert owner.add(job, [b"a", b"b" * 5000, b"c", b"d"]) == Added(1)

    def test_a_named_job_knows_its_inputs_when_they_have_succeeded(self, owner: Owner) -> None:
        blob = Blob(b"d" * 32, 5)
        owner.do("put_blob", blob, b"bytes", owner.now)
        payloads: list[Payload] = [b"a", b"b" * 5000, blob]
        job = owner.submit(payloads, name="run")
        worker = owner.worker()
        owner.finish(worker, owner.lease(worker))
        assert owner.add(job, payloads) == Added(0)
        for index in range(3):
            result = owner.add(job, [b"z"], first=index)
            assert refused(result, RefusalCode.INPUT_CHANGED, [index])

    def test_other_inputs_under_a_unique_key_conflict(self, owner: Owner) -> None:
        job = owner.open(unique_key="k").number
        owner.add(job, [b"a"])
        assert refused(owner.add(job, [b"b"]), RefusalCode.KEY_CONFLICT, [0])

    def test_a_sealed_job_takes_no_more(self, owner: Owner) -> None:
        job = owner.submit(2)
        assert refused(owner.add(job, 1, first=2), RefusalCode.BAD_REQUEST, [2])
        named = owner.submit(2, name="n")
        assert refused(owner.add(named, 1, first=2), RefusalCode.INPUT_CHANGED, [2])

    def test_a_job_may_be_sealed_before_its_last_tasks_come(self, owner: Owner) -> None:
        job = owner.open().number
        owner.add(job, 1)
        owner.seal(job, 3)
        assert refused(owner.add(job, 2, first=2), RefusalCode.BAD_REQUEST, [2, 3])
        assert owner.add(job, 2, first=1) == Added(2)

    def test_sealing_again_with_the_same_total_is_fine(self, owner: Owner) -> None:
        job = owner.submit(2)
        assert owner.do("seal_job", job, 2, owner.now) is None
        assert refused(owner.do("seal_job", job, 3, owner.now), RefusalCode.BAD_REQUEST)

    def test_a_total_below_what_is_there_is_refused(self, owner: Owner) -> None:
        job = owner.open().number
        owner.add(job, 3)
        assert refused(owner.do("seal_job", job, 2, owner.now), RefusalCode.BAD_REQUEST)

    def test_what_does_not_exist_is_refused(self, owner: Owner) -> None:
        missing = Blob(b"m" * 32, 9)
        job = owner.open().number
        bad = RefusalCode.BAD_REQUEST
        assert refused(owner.add(99, 1), bad)
        assert refused(owner.do("seal_job", 99, 1, owner.now), bad)
        assert refused(owner.add(job, [b"a", missing]), bad)
        assert refused(owner.add(job, [b"a", b"b"], keys=["k"]), bad)
        assert refused(owner.add(job, 2, first=MAX_INDEX), bad)
        assert refused(owner.add(job, 1, first=-1), bad)
        for spec in (make_spec(after=(99,)), make_spec(function=missing.digest)):
            assert refused(owner.do("open_job", owner.uid(), spec, None, owner.now), bad)
        assert [row.number for row in owner.store.jobs()] == [job]

    def test_numbers_that_can_not_be_are_refused_or_nothing(self, owner: Owner) -> None:
        huge = 2**64 - 1
        blob = Blob(b"b" * 32, 5)
        owner.do("put_blob", blob, b"bytes", owner.now)
        job = owner.open().number
        owner.add(job, 1)
        bad = RefusalCode.BAD_REQUEST
        store = owner.store
        for number in (huge, -1, 0, MAX_JOB + 1):
            assert refused(owner.add(number, 1), bad)
            assert store.job(number) is None
            assert store.tasks(number) == []
            assert store.outcomes(number, -1, 9) == []
            assert store.jobs(before=number) == ([] if number < 1 else store.jobs())
            spec = make_spec(after=(number,))
            assert refused(owner.do("open_job", owner.uid(), spec, None, owner.now), bad)
        for number in (huge, -1, 0):
            assert store.task(number) is None
            assert store.output(number) == []
            assert store.attempts(number) == []
            assert not owner.prints(1, Held(number, huge), b"x")
            assert owner.finish(1, [Held(number, huge)]).stale == [Held(number, huge)]
            assert owner.do("release", 1, [Held(number, huge)], owner.now) == []
        for index in (huge, -1):
            assert refused(owner.add(job, 1, first=index), bad)
            assert refused(owner.do("seal_job", job, index, owner.now), bad)
            assert owner.do("retry", job, [index], owner.now) == 0
            assert owner.do("take", job, index) == 0
            cancelled = owner.do("cancel", job, [index], only_queued=False, now=owner.now)
            assert cancelled.finals == []
        assert store.outcomes(job, huge, 9) == []
        assert store.tasks(job, after_index=huge) == []
        for size_bytes in (huge, 6, -1):
            assert refused(owner.add(job, [Blob(blob.digest, size_bytes)], first=1), bad)

    def test_a_full_queue_refuses_all_of_a_batch(self, owner: Owner) -> None:
        owner.do("set_queue", "small", is_paused=None, limit=3)
        job = owner.open(queue="small").number
        assert owner.add(job, 2) == Added(2)
        assert refused(owner.add(job, 2, first=2), RefusalCode.QUEUE_FULL)
        assert owner.add(job, 3) == Added(1)
        worker = owner.worker()
        owner.lease(worker, 2)
        assert owner.add(job, 2, first=3) == Added(2)
        owner.do("set_queue", "small", is_paused=None, limit=0)
        assert owner.add(job, 9, first=5) == Added(9)

    def test_a_job_without_tasks_succeeds_when_sealed(self, owner: Owner) -> None:
        job = owner.open().number
        owner.seal(job, 0)
        assert [(row.number, row.state) for row in owner.changes.ended] == [
            (job, JobState.SUCCEEDED)
        ]

    def test_a_found_transient_job_passes_to_its_new_owner(self, owner: Owner) -> None:
        first, second = owner.client(), owner.client()
        uid = owner.uid()
        job = owner.open(uid, first, is_transient=True).number
        owner.add(job, 1)
        owner.open(uid, second, is_transient=True)
        assert owner.do("disown", first, owner.now).finals == []
        finals = owner.do("disown", second, owner.now).finals
        assert [final.ending for final in finals] == [Ending.CANCELLED]

    def test_only_a_transient_job_has_an_owner(self, owner: Owner) -> None:
        client = owner.client()
        for is_transient in (False, True):
            job = owner.open(owner=client, is_transient=is_transient)
            row = owner.store.job(job.number)
            assert row is not None
            assert row.owner == (client if is_transient else None)
