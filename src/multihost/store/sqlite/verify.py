"""Every invariant of the file, checked by reading all of it."""

from typing import Final

from multihost.core.job import blobs_of
from multihost.store.sqlite.book import Book
from multihost.store.sqlite.entries import decode_spec

_CHECKS: Final[tuple[tuple[str, str], ...]] = (
    (
        "job {}: its counters say {}, its tasks are {}",
        """
        SELECT number, printf('%d %d %d, %d ended', blocked, queued, running,
                              succeeded + failed + cancelled - dropped), found
        FROM jobs, (
            SELECT number AS job, printf('%d %d %d, %d ended',
                coalesce(sum(tasks.state = 0), 0), coalesce(sum(tasks.state = 1), 0),
                coalesce(sum(tasks.state = 2), 0), coalesce(sum(tasks.state >= 3), 0)) AS found
            FROM jobs LEFT JOIN tasks ON id BETWEEN number << 32 AND (number << 32) + 4294967295
            GROUP BY number)
        WHERE job = number AND found <>
            printf('%d %d %d, %d ended', blocked, queued, running,
                   succeeded + failed + cancelled - dropped)
        """,
    ),
    (
        "job {}: {} tasks succeeded, failed or were cancelled by its counters, fewer by its rows",
        """
        SELECT number, succeeded || '/' || failed || '/' || cancelled FROM jobs
        WHERE succeeded < (SELECT count(*) FROM tasks WHERE state = 3
                           AND id BETWEEN number << 32 AND (number << 32) + 4294967295)
           OR failed < (SELECT count(*) FROM tasks WHERE state = 4
                        AND id BETWEEN number << 32 AND (number << 32) + 4294967295)
           OR cancelled < (SELECT count(*) FROM tasks WHERE state = 5
                           AND id BETWEEN number << 32 AND (number << 32) + 4294967295)
        """,
    ),
    (
        "job {} is in state {}, which its counters contradict",
        """
        SELECT number, state FROM jobs WHERE state <> CASE
            WHEN total IS NULL OR blocked + queued + running > 0
                OR succeeded + failed + cancelled < total THEN 0
            WHEN failed > 0 THEN 2 WHEN cancelled > 0 THEN 3 ELSE 1 END
           OR (state = 0) <> (ended_at IS NULL) OR (state = 0) <> (prune_at IS NULL)
        """,
    ),
    (
        "lane {}: its counters say {}, those of its jobs {}",
        """
        SELECT number, mine, theirs FROM (
            SELECT number, printf('%d jobs, %d %d %d %d %d %d', jobs, blocked, queued, running,
                                  succeeded, failed, cancelled) AS mine,
                (SELECT printf('%d jobs, %d %d %d %d %d %d', count(*),
                    coalesce(sum(blocked), 0), coalesce(sum(queued), 0),
                    coalesce(sum(running), 0), coalesce(sum(succeeded), 0),
                    coalesce(sum(failed), 0), coalesce(sum(cancelled), 0))
                 FROM jobs WHERE lane = lanes.number) AS theirs
            FROM lanes) WHERE mine <> theirs
        """,
    ),
    (
        "job {} is in lane {}, which does not exist",
        "SELECT number, lane FROM jobs WHERE lane NOT IN (SELECT number FROM lanes)",
    ),
    (
        "task {} belongs to no job",
        """
        SELECT (id >> 32) || '/' || (id & 4294967295) FROM tasks
        WHERE id >> 32 NOT IN (SELECT number FROM jobs)
          AND id >> 32 NOT IN (SELECT job FROM graves)
        """,
    ),
    (
        "task {}: state {}, place {}, due {} and token {} don't fit together",
        """
        SELECT id, state, place, due, token FROM tasks
        WHERE state NOT BETWEEN 0 AND 5
           OR (state = 2) <> (place IS NOT NULL AND place < 0)
           OR (state <> 1 AND place > 0)
           OR (due IS NOT NULL AND (state >= 2 OR place IS NOT NULL))
           OR (state = 1 AND place IS NULL AND due IS NULL AND key IS NULL)
           OR (state = 2 AND token IS NULL)
        """,
    ),
    (
        "task {} is ready in lane {}, its job is in lane {}",
        """
        SELECT id, place, lane FROM tasks, jobs
        WHERE number = id >> 32 AND place > 0 AND place <> lane
        """,
    ),
    (
        "task {} has ended without an outcome",
        "SELECT id FROM tasks WHERE state >= 3 AND id NOT IN (SELECT id FROM results)",
    ),
    (
        "an outcome is kept of task {}, which has not ended or is gone",
        "SELECT id FROM results WHERE id NOT IN (SELECT id FROM tasks WHERE state >= 3)",
    ),
    (
        "task {}: its outcome {} does not fit its state {}",
        """
        SELECT tasks.id, ending, state FROM tasks, results WHERE tasks.id = results.id AND
            state <> CASE WHEN ending = 0 THEN 3 WHEN ending IN (5, 8) THEN 5 ELSE 4 END
        """,
    ),
    (
        "task {}: its payload is not where it should be (size {})",
        """
        SELECT id, size FROM tasks
        WHERE (size = -1) <> (id IN (SELECT id FROM payloads))
           OR (size >= 0 AND args IS NULL) OR (state <= 2 AND size IS NULL AND args IS NULL)
        """,
    ),
    (
        "a payload is kept of task {}, which is gone",
        "SELECT id FROM payloads WHERE id NOT IN (SELECT id FROM tasks)",
    ),
    (
        "an attempt is kept of task {}, which is gone",
        "SELECT DISTINCT task FROM attempts WHERE task NOT IN (SELECT id FROM tasks)",
    ),
    (
        "output is kept of task {}, which is gone",
        "SELECT DISTINCT task FROM output WHERE task NOT IN (SELECT id FROM tasks)",
    ),
    (
        "key {}: its counters say {} (ready, running, rows), its tasks {}",
        """
        SELECT number, mine, theirs FROM (
            SELECT number, printf('%d %d %d', ready, running, refs) AS mine,
                (SELECT printf('%d %d %d', coalesce(sum(place > 0), 0),
                               coalesce(sum(place < 0), 0), count(*))
                 FROM tasks WHERE key = keys.number) AS theirs
            FROM keys) WHERE mine <> theirs
        """,
    ),
    (
        "key {} lets {} tasks wait although its limits leave room",
        """
        SELECT number, parked FROM (
            SELECT *, (SELECT count(*) FROM tasks WHERE key = keys.number AND state = 1
                       AND place IS NULL AND due IS NULL) AS parked FROM keys)
        WHERE parked > 0 AND wake_at IS NULL
          AND ("limit" IS NULL OR ready + running < "limit") AND (delay = 0 OR ready = 0)
        """,
    ),
    (
        "task {} has a key that does not exist",
        "SELECT id FROM tasks WHERE key IS NOT NULL AND key NOT IN (SELECT number FROM keys)",
    ),
    (
        "blob {} is counted {} times and referred to {} times",
        """
        WITH references_ (digest) AS (
            SELECT args FROM tasks WHERE size >= 0
            UNION ALL SELECT payload FROM results WHERE size IS NOT NULL
            UNION ALL SELECT payload FROM items WHERE size IS NOT NULL
            UNION ALL SELECT value FROM job_blobs)
        SELECT hex(digest), refs, found FROM (
            SELECT digest, refs,
                (SELECT count(*) FROM references_ WHERE references_.digest = blobs.digest) AS found
            FROM blobs) WHERE refs <> found
        UNION ALL SELECT hex(digest), 0, count(*) FROM references_
        WHERE digest NOT IN (SELECT digest FROM blobs) GROUP BY digest
        """,
    ),
    (
        "blob {}: its bytes are missing or left over",
        """
        SELECT hex(digest) FROM blobs
        WHERE is_inline <> (digest IN (SELECT digest FROM blob_data))
        UNION ALL SELECT hex(digest) FROM blob_data WHERE digest NOT IN (SELECT digest FROM blobs)
        """,
    ),
    (
        "job {} waits for {} jobs, {} are noted",
        """
        SELECT number, needs, found FROM (
            SELECT number, needs, (SELECT count(*) FROM dependencies WHERE job = number) AS found
            FROM jobs WHERE needs >= 0) WHERE needs <> found
        """,
    ),
    (
        "job {} has tasks that wait for other jobs, but there are none",
        """
        SELECT number FROM jobs
        WHERE blocked > 0 AND needs <= 0 AND number NOT IN (SELECT job FROM settling)
        """,
    ),
    (
        "queue {!r}: {} waiting, {} held by its counters; {} and {} by its items",
        """
        WITH found (queue, items, held) AS (
            SELECT items.id >> 38, count(*), count(holder)
            FROM items LEFT JOIN taken_items ON taken_items.id = items.id GROUP BY 1)
        SELECT name, waiting, item_queues.held, coalesce(items, 0) - coalesce(found.held, 0),
            coalesce(found.held, 0)
        FROM item_queues LEFT JOIN found ON queue = number
        WHERE waiting <> coalesce(items, 0) - coalesce(found.held, 0)
            OR item_queues.held <> coalesce(found.held, 0)
        """,
    ),
    (
        "queue {!r}: {} items put, {} waiting, {} held and {} confirmed",
        """
        SELECT name, put, waiting, held, confirmed FROM item_queues
        WHERE put <> waiting + held + confirmed
        """,
    ),
    (
        "queue {!r}: {} items unfinished, {} were put",
        "SELECT name, unfinished, put FROM item_queues WHERE unfinished NOT BETWEEN 0 AND put",
    ),
    (
        "queue {!r}: item {} lies at or behind position {}, where the next is to be put",
        """
        SELECT name, items.id, put FROM item_queues
        JOIN items ON items.id BETWEEN (number << 38) + put AND ((number + 1) << 38) - 1
        """,
    ),
    (
        "queue {!r} confirms items when they are taken, yet {} are held",
        "SELECT name, held FROM item_queues WHERE confirm = 2 AND held <> 0",
    ),
    (
        "queue {} is there, and is being deleted",
        "SELECT queue FROM item_graves WHERE queue IN (SELECT number FROM item_queues)",
    ),
    (
        "item {} waits untaken before {}, which was taken",
        """
        SELECT min(items.id), last FROM items
        JOIN (SELECT id >> 38 AS queue, max(id) AS last FROM taken_items GROUP BY 1)
            ON items.id >> 38 = queue AND items.id < last
        WHERE items.id NOT IN (SELECT id FROM taken_items) GROUP BY queue
        """,
    ),
    (
        "item {} was taken, but there is no such item",
        "SELECT id FROM taken_items WHERE id NOT IN (SELECT id FROM items)",
    ),
    (
        "item {} is of a queue that is gone",
        """
        SELECT id FROM items WHERE id >> 38 NOT IN
            (SELECT number FROM item_queues UNION ALL SELECT queue FROM item_graves)
        """,
    ),
    (
        "something is to be done to job {}, which is gone",
        "SELECT job FROM settling WHERE job NOT IN (SELECT number FROM jobs)",
    ),
)


def verify(book: Book) -> list[str]:
    """Every broken invariant, in words."""
    broken = [str(row[0]) for row in book.run("PRAGMA integrity_check") if row[0] != "ok"]
    if broken:
        return broken
    _list_job_blobs(book)
    try:
        for text, sql in _CHECKS:
            broken.extend(text.format(*row) for row in book.run(sql))
    finally:
        book.run("DROP TABLE temp.job_blobs")
    return broken


def _list_job_blobs(book: Book) -> None:
    """Specs are opaque to SQL: write down the blobs they name, for the count of references."""
    book.run("CREATE TEMP TABLE job_blobs (value BLOB)")
    digests = [
        (digest,)
        for (spec,) in book.run("SELECT spec FROM jobs")
        for digest in blobs_of(decode_spec(spec))
    ]
    book.many("INSERT INTO temp.job_blobs VALUES (?)", digests)
