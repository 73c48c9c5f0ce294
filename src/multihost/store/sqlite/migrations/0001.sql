-- The first schema. Statements run in one transaction; the version is set by the caller.
--
-- Numbers of states and endings are those of core.state and core.outcome.
-- A row in tasks is rewritten twice in its life, so it is kept small: what is
-- big (payloads above 1 KiB, results, blobs) lies in tables that are written once.

CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value ANY NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE lanes (
    number INTEGER PRIMARY KEY,
    queue TEXT NOT NULL,
    requires TEXT NOT NULL,
    jobs INTEGER NOT NULL DEFAULT 0,
    blocked INTEGER NOT NULL DEFAULT 0,
    queued INTEGER NOT NULL DEFAULT 0,
    running INTEGER NOT NULL DEFAULT 0,
    succeeded INTEGER NOT NULL DEFAULT 0,
    failed INTEGER NOT NULL DEFAULT 0,
    cancelled INTEGER NOT NULL DEFAULT 0,
    UNIQUE (queue, requires)
) STRICT;

CREATE TABLE queues (
    name TEXT PRIMARY KEY,
    is_paused INTEGER NOT NULL DEFAULT 0,
    "limit" INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE jobs (
    number INTEGER PRIMARY KEY,
    uid BLOB NOT NULL UNIQUE,
    name TEXT,
    unique_key TEXT,
    state INTEGER NOT NULL,
    lane INTEGER NOT NULL,
    total INTEGER,            -- NULL: not sealed
    blocked INTEGER NOT NULL,
    queued INTEGER NOT NULL,
    running INTEGER NOT NULL,
    succeeded INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    cancelled INTEGER NOT NULL,
    needs INTEGER NOT NULL,   -- jobs that have to succeed first; -1: one of them did not
    taken INTEGER NOT NULL,   -- tasks below this index may have been dropped
    dropped INTEGER NOT NULL, -- how many were
    traits INTEGER NOT NULL,  -- bits: has keys, has blobs
    owner INTEGER,
    created_at REAL NOT NULL,
    ended_at REAL,
    prune_at REAL,
    spec BLOB NOT NULL        -- msgpack of core.job.JobSpec
) STRICT;
CREATE UNIQUE INDEX jobs_name ON jobs (name) WHERE name IS NOT NULL;
CREATE UNIQUE INDEX jobs_unique_key ON jobs (unique_key) WHERE unique_key IS NOT NULL;
CREATE INDEX jobs_owner ON jobs (owner) WHERE owner IS NOT NULL;
CREATE INDEX jobs_prune ON jobs (prune_at); -- NULL: the open ones
CREATE INDEX jobs_unsuccessful ON jobs (state) WHERE state >= 2;

CREATE TABLE dependencies (
    needs INTEGER NOT NULL,
    job INTEGER NOT NULL,
    PRIMARY KEY (needs, job)
) STRICT, WITHOUT ROWID;

-- Jobs that were pruned and whose rows are still being deleted, a few at a time.
CREATE TABLE graves (
    job INTEGER PRIMARY KEY,
    traits INTEGER NOT NULL
) STRICT;

-- Jobs whose waiting tasks, from the cursor on, are still to be cancelled or let go.
CREATE TABLE settling (
    job INTEGER PRIMARY KEY,
    what INTEGER NOT NULL,
    cursor INTEGER NOT NULL
) STRICT;

CREATE TABLE keys (
    number INTEGER PRIMARY KEY,
    queue TEXT NOT NULL,
    name TEXT NOT NULL,
    "limit" INTEGER,
    delay REAL NOT NULL,
    ready INTEGER NOT NULL,   -- its tasks that are queued without a hold
    running INTEGER NOT NULL,
    refs INTEGER NOT NULL,    -- its rows in tasks
    next_at REAL NOT NULL,    -- last start + delay
    wake_at REAL,
    UNIQUE (queue, name)
) STRICT;
CREATE INDEX keys_wake ON keys (wake_at) WHERE wake_at IS NOT NULL;
CREATE INDEX keys_unused ON keys (next_at) WHERE refs = 0;

CREATE TABLE tasks (
    id INTEGER PRIMARY KEY,   -- job << 32 | index
    state INTEGER NOT NULL DEFAULT 1,
    place INTEGER,            -- ready: number of its lane; running: minus that of the session;
                              -- NULL: neither, as when it waits for its time (due) or its key
    rank INTEGER NOT NULL,    -- minus the priority
    seq INTEGER NOT NULL,     -- order of arrival over all jobs
    due REAL,                 -- not before; NULL once that has passed
    expires REAL,             -- fails if not started by then
    key INTEGER,
    token INTEGER,            -- the last one granted
    errors INTEGER NOT NULL DEFAULT 0,
    crashes INTEGER NOT NULL DEFAULT 0,
    losses INTEGER NOT NULL DEFAULT 0,
    size INTEGER,             -- NULL: args is the payload; >= 0: args is a blob's digest;
                              -- -1: the payload is in payloads; -2: dropped, args is its digest
    args BLOB                 -- NULL with size NULL: dropped
) STRICT;
-- One index for what is ready and what runs: both are few and change together, so that in
-- a small store a commit writes one page for them, and a lease moves an entry within it.
CREATE INDEX tasks_place ON tasks (place, rank, seq) WHERE place IS NOT NULL;
CREATE INDEX tasks_due ON tasks (due) WHERE due IS NOT NULL AND state = 1;
CREATE INDEX tasks_expires ON tasks (expires) WHERE expires IS NOT NULL AND state <= 1;
CREATE INDEX tasks_keyed ON tasks (key, (place IS NULL), rank, seq)
    WHERE key IS NOT NULL AND state = 1 AND due IS NULL;
CREATE INDEX tasks_unsuccessful ON tasks (state, id) WHERE state >= 4;

CREATE TABLE payloads (
    id INTEGER PRIMARY KEY,
    data BLOB NOT NULL
) STRICT;

CREATE TABLE results (
    id INTEGER PRIMARY KEY,
    ending INTEGER NOT NULL,
    size INTEGER,             -- NULL: payload itself; else payload is a blob's digest
    payload BLOB NOT NULL
) STRICT;

CREATE TABLE attempts (
    task INTEGER NOT NULL,
    token INTEGER NOT NULL,
    ending INTEGER NOT NULL,
    session INTEGER,
    ended_at REAL NOT NULL,
    failure BLOB NOT NULL,
    PRIMARY KEY (task, token)
) STRICT, WITHOUT ROWID;

CREATE TABLE output (
    task INTEGER NOT NULL,
    position INTEGER NOT NULL, -- of the first byte, counted over all the task printed
    stream INTEGER NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (task, position)
) STRICT, WITHOUT ROWID;

CREATE TABLE sessions (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    uid BLOB NOT NULL UNIQUE,
    role TEXT NOT NULL,
    info BLOB NOT NULL,       -- msgpack of store.base.SessionInfo
    opened_at REAL NOT NULL,
    closed_at REAL
) STRICT;
CREATE INDEX sessions_open ON sessions (role) WHERE closed_at IS NULL;
CREATE INDEX sessions_closed ON sessions (closed_at) WHERE closed_at IS NOT NULL;

CREATE TABLE blobs (
    digest BLOB PRIMARY KEY,
    size INTEGER NOT NULL,
    refs INTEGER NOT NULL,
    touched_at REAL NOT NULL,
    is_inline INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX blobs_unused ON blobs (touched_at) WHERE refs = 0;

CREATE TABLE blob_data (
    digest BLOB PRIMARY KEY,
    data BLOB NOT NULL
) STRICT;
