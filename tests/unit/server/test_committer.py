"""Claims about group commit, with a store that records what is asked of it."""

import asyncio
import weakref

import pytest
from quiet_listener import QuietListener

from multihost.errors import StoreError, StoreFull
from multihost.server.committer import Committer
from multihost.server.operation import Operation
from multihost.store.base import Changes


class RecordingStore:
    def __init__(self):
        self.log = []
        self.publish_error = None
        self.commit_error = None

    def begin(self):
        self.log.append("begin")

    def prepare(self, now):
        return Changes([], [])

    def publish(self):
        if self.publish_error is not None:
            error, self.publish_error = self.publish_error, None
            raise error

    def commit(self, *, is_durable):
        if self.commit_error is not None:
            error, self.commit_error = self.commit_error, None
            raise error
        self.log.append("commit durable" if is_durable else "commit")

    def rollback(self):
        self.log.append("rollback")


class Leasing(QuietListener):
    """Leases one task to an idle slot in every transaction that ``tasks`` says."""

    def __init__(self, log, tasks):
        self.log = log
        self.tasks = tasks
        self.new = 0

    def assign(self, store, now):
        if self.tasks:
            self.tasks -= 1
            self.new += 1
        return self.new > 0

    def grant(self):
        if self.new:
            self.log.append("grant")
        self.new = 0

    def rolled_back(self):
        self.log.append("revoke")


def run(scenario, *, is_durable=False):
    async def main():
        store, fatal = RecordingStore(), []
        committer = Committer(store, is_durable=is_durable, on_fatal=fatal.append)
        committer.listener = QuietListener()
        await scenario(store, committer, fatal)
        committer.stop()

    asyncio.run(main())


def test_what_arrives_together_is_committed_together():
    async def scenario(store, committer, fatal):
        done = []
        for number in range(3):
            committer.submit(Operation(lambda s, now, n=number: n, done.append))
        await committer.drain()
        assert done == [0, 1, 2]
        assert store.log == ["begin", "commit"]

    run(scenario)


def test_nobody_is_answered_before_the_commit():
    async def scenario(store, committer, fatal):
        seen = []
        committer.submit(Operation(lambda s, now: None, lambda _: seen.extend(store.log)))
        await committer.drain()
        assert seen == ["begin", "commit durable"]

    run(scenario, is_durable=True)


def test_leases_alone_do_not_wait_for_the_disk():
    async def scenario(store, committer, fatal):
        committer.submit(Operation(lambda s, now: None, is_durable=False))
        await committer.drain()
        assert store.log == ["begin", "commit"]

    run(scenario, is_durable=True)


def test_what_arrives_during_a_commit_goes_into_the_next():
    async def scenario(store, committer, fatal):
        def again(_):
            committer.submit(Operation(lambda s, now: None))

        committer.submit(Operation(lambda s, now: None, again))
        await committer.drain()
        assert store.log == ["begin", "commit durable"] * 2

    run(scenario, is_durable=True)


def test_who_wants_work_during_a_commit_gets_it_after_that():
    async def scenario(store, committer, fatal):
        listener = committer.listener = Leasing(store.log, tasks=0)
        committer.submit(Operation(lambda s, now: None))
        await asyncio.sleep(0)  # the transaction has run, its commit is due
        assert store.log == ["begin"]
        listener.tasks = 1
        committer.kick()
        await committer.drain()
        assert store.log.count("grant") == 1

    run(scenario, is_durable=True)


def test_an_operation_that_raises_does_not_take_others_down():
    async def scenario(store, committer, fatal):
        done, failed = [], []

        def fail(s, now):
            raise ZeroDivisionError

        committer.submit(Operation(lambda s, now: 1, done.append))
        committer.submit(Operation(fail, failed=failed.append))
        committer.submit(Operation(lambda s, now: 3, done.append))
        await committer.drain()
        assert done == [1, 3]
        assert isinstance(failed[0], ZeroDivisionError)
        assert fatal == []

    run(scenario)


def test_a_broken_store_acknowledges_nothing_and_stops_the_server():
    async def scenario(store, committer, fatal):
        done = []
        store.commit_error = StoreError("fsync: I/O error")
        committer.submit(Operation(lambda s, now: None, done.append))
        await committer.drain()
        assert done == []
        assert isinstance(fatal[0], StoreError)

    run(scenario, is_durable=True)


def test_leases_leave_before_the_disk_is_waited_for_and_answers_after_it():
    async def scenario(store, committer, fatal):
        committer.listener.assign = lambda s, now: True
        committer.listener.grant = lambda: store.log.append("grant")
        committer.submit(Operation(lambda s, now: None, lambda _: store.log.append("answer")))
        await committer.drain()
        assert store.log == ["begin", "grant", "commit durable", "answer"]

    run(scenario, is_durable=True)


def test_a_lone_task_s_submit_and_outcome_are_one_transaction():
    async def scenario(store, committer, fatal):
        log = store.log
        committer.listener = Leasing(log, 1)
        committer.submit(
            Operation(lambda s, now: None, lambda _: log.append("stored"), may_linger=True)
        )
        committer._turn()
        assert log == ["begin", "grant"]
        committer.submit(Operation(lambda s, now: None, lambda _: log.append("outcome")))
        await committer.drain()
        assert log == ["begin", "grant", "commit durable", "stored", "outcome"]

    run(scenario, is_durable=True)


def test_a_lone_task_s_acknowledgement_does_not_wait_for_a_long_task():
    async def scenario(store, committer, fatal):
        committer.listener = Leasing(store.log, 1)
        committer.submit(Operation(lambda s, now: None, may_linger=True))
        await committer.drain()
        assert store.log == ["begin", "grant", "commit durable"]

    run(scenario, is_durable=True)


def test_a_lone_task_that_no_slot_takes_is_acknowledged_at_once():
    async def scenario(store, committer, fatal):
        committer.submit(Operation(lambda s, now: None, may_linger=True))
        committer._turn()
        assert committer._open == []
        await committer.drain()

    run(scenario, is_durable=True)


def test_nothing_is_kept_of_what_nobody_waits_for():
    async def scenario(store, committer, fatal):
        class Work:
            def __call__(self, store, now):
                operation.is_durable = True

        work = Work()
        kept = weakref.ref(work)
        operation = Operation(work, is_told=True)
        committer.submit(operation)
        del work
        committer._turn()
        assert kept() is None
        assert "commit durable" not in store.log
        await committer.drain()
        assert store.log[-1] == "commit durable"

    run(scenario, is_durable=True)


def test_a_commit_that_is_due_does_not_tear_a_lone_task_s_transaction():
    async def scenario(store, committer, fatal):
        log = store.log
        committer.submit(Operation(lambda s, now: None, is_told=True))
        committer._turn()
        committer.listener = Leasing(log, 1)
        committer.submit(
            Operation(lambda s, now: None, lambda _: log.append("stored"), may_linger=True)
        )
        committer._turn()
        committer._settle()  # the timer's work for what was told, without waiting for it
        await committer.drain()
        assert log == ["begin", "begin", "grant", "commit durable", "stored"]

    run(scenario, is_durable=True)


def test_a_lone_task_that_can_not_be_written_is_revoked_and_refused():
    async def scenario(store, committer, fatal):
        done, refused = [], []
        store.publish_error = StoreFull("no room on the disk")
        committer.listener = Leasing(store.log, 1)
        committer.submit(
            Operation(lambda s, now: 1, done.append, refused=refused.append, may_linger=True)
        )
        committer._turn()
        committer._close()  # the timer's work, without waiting for it
        assert (done, refused, fatal) == ([], ["no room on the disk"], [])
        assert store.log == ["begin", "grant", "rollback", "revoke"]

    run(scenario)


def test_a_bug_beside_a_lone_task_does_not_take_it_down():
    async def scenario(store, committer, fatal):
        done, failed = [], []

        def fail(s, now):
            raise ZeroDivisionError

        committer.listener = Leasing(store.log, 1)
        committer.submit(Operation(lambda s, now: 1, done.append, may_linger=True))
        committer._turn()
        committer.submit(Operation(fail, failed=failed.append))
        await committer.drain()
        assert done == [1]
        assert isinstance(failed[0], ZeroDivisionError)
        assert store.log.count("revoke") == 2  # what the lone task had got, and the bug's own

    run(scenario)


def test_a_full_store_refuses_what_may_be_refused():
    async def scenario(store, committer, fatal):
        done, refused = [], []
        store.publish_error = StoreFull("no room on the disk")
        committer.submit(Operation(lambda s, now: None, done.append, refused=refused.append))
        committer._turn()
        assert (done, refused, fatal) == ([], ["no room on the disk"], [])
        assert store.log == ["begin", "rollback"]

    run(scenario)


def test_a_full_store_keeps_outcomes_until_there_is_room():
    async def scenario(store, committer, fatal):
        done = []
        store.publish_error = StoreFull("no room on the disk")
        committer.submit(Operation(lambda s, now: 7, done.append))
        committer._turn()
        assert done == []
        committer._turn()  # the timer's work, without waiting for it
        assert done == [7]

    run(scenario)


def test_a_full_store_is_still_read():
    async def scenario(store, committer, fatal):
        store.publish_error = StoreFull("no room on the disk")
        committer.submit(Operation(lambda s, now: None))
        listing = committer.ask(lambda s, now: ["job"], only_reads=True)
        order = committer.ask(lambda s, now: None)
        committer._turn()
        assert await listing == ["job"]
        with pytest.raises(StoreFull, match="no room"):
            await order

    run(scenario)


def test_a_part_that_takes_part_hears_what_became_of_each_transaction():
    class Part:
        def __init__(self):
            self.heard = []

        def finish(self, store):
            self.heard.append("finish")

        def published(self):
            self.heard.append("published")

        def committed(self):
            self.heard.append("committed")

        def rolled_back(self):
            self.heard.append("rolled back")

    async def scenario(store, committer, fatal):
        part = Part()
        committer.participants.append(part)
        committer.submit(Operation(lambda s, now: None, lambda _: part.heard.append("done")))
        await committer.drain()
        assert part.heard == ["finish", "published", "committed", "done"]
        part.heard.clear()

        def fail(s, now):
            raise ZeroDivisionError

        committer.submit(Operation(fail, failed=lambda _: part.heard.append("failed")))
        await committer.drain()
        assert part.heard == ["rolled back", "rolled back", "failed"]

    run(scenario, is_durable=True)


def test_leases_of_a_job_that_is_opened_wait_until_its_client_watches_it():
    async def scenario(store, committer, fatal):
        committer.listener.assign = lambda s, now: True
        committer.listener.grant = lambda: store.log.append("grant")
        committer.submit(
            Operation(lambda s, now: None, lambda _: store.log.append("opened"), comes_first=True)
        )
        await committer.drain()
        assert store.log == ["begin", "commit durable", "opened", "grant"]

    run(scenario, is_durable=True)
