-- Queues of items, synchronizers, and what takers were answered last.
--
-- An item's row is written once and deleted once. Who holds it is said in a row
-- of its own, because payloads may be large and SQLite rewrites whole rows.

CREATE TABLE item_queues (
    number INTEGER PRIMARY KEY AUTOINCREMENT, -- never used again: items' numbers begin with it
    name TEXT NOT NULL UNIQUE,
    "limit" INTEGER NOT NULL,
    confirm INTEGER NOT NULL,
    owner INTEGER,            -- session that a transient queue ends with
    is_closed INTEGER NOT NULL DEFAULT 0,
    waiting INTEGER NOT NULL DEFAULT 0,
    held INTEGER NOT NULL DEFAULT 0,
    unfinished INTEGER NOT NULL DEFAULT 0,
    put INTEGER NOT NULL DEFAULT 0,
    confirmed INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX item_queues_owner ON item_queues (owner) WHERE owner IS NOT NULL;

CREATE TABLE items (
    id INTEGER PRIMARY KEY,   -- queue << 38 | position
    size INTEGER,             -- NULL: payload itself; else payload is a blob's digest
    payload BLOB NOT NULL
) STRICT;

-- Items that were taken at least once.
CREATE TABLE taken_items (
    id INTEGER PRIMARY KEY,
    holder INTEGER,           -- the taker; NULL: it came back and waits
    call INTEGER NOT NULL,    -- the taker's call that took it
    attempt INTEGER NOT NULL
) STRICT;

-- Queues that were dropped and whose items are still being deleted, a few at a time.
CREATE TABLE item_graves (
    queue INTEGER PRIMARY KEY
) STRICT;

CREATE TABLE synchronizers (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    kind INTEGER NOT NULL,
    name TEXT NOT NULL UNIQUE,
    owner INTEGER,
    state BLOB NOT NULL
) STRICT;
CREATE INDEX synchronizers_owner ON synchronizers (owner) WHERE owner IS NOT NULL;

CREATE TABLE takers (
    taker INTEGER PRIMARY KEY,
    number INTEGER NOT NULL,
    answer BLOB NOT NULL
) STRICT;
