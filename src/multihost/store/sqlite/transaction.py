"""Transactions of a store: in the database, or as a record in the journal.

A transaction of the database begins with the first verb that needs one. Until
then what is done is in memory alone, and if it ends so, it is a record in the
journal. What the journal has, the next transaction of the database writes into
the tables before anything else.
"""

import contextlib
from typing import Final

import apsw

from multihost.errors import StoreError
from multihost.store.places import journal_of
from multihost.store.sqlite import items
from multihost.store.sqlite.book import Book
from multihost.store.sqlite.file import DatabaseFile
from multihost.store.sqlite.journal import Journal
from multihost.store.sqlite.memtable import Exchanging, Noting, decode_deeds, encode_deeds

IDLE_TURNS: Final = 100
"""Transactions of the database without one for the journal, after which that is not in use."""


class Transactions:
    """One after the other, on a database, a journal, and the book that remembers both.

    Invariant: between transactions the book says what database and journal say together.
    """

    def __init__(self, file: DatabaseFile, book: Book, journal: Journal) -> None:
        """Bring into ``book`` and database what ``journal`` has, and begin its first lap."""
        self.is_entered = False
        """Whether there is a transaction of the database."""
        self._file = file
        self._db = file.db
        self._book = book
        self._memtable = book.items.memtable
        self._journal = journal
        self._journal_path = journal_of(file.path)
        self._is_begun = False
        self._is_turning = False
        """Whether it ends the journal's generation."""
        self._idle_turns = IDLE_TURNS
        """Transactions of the database since the last one that the journal could have taken."""
        self._record: bytes | None = None
        """What the transaction has for the journal."""
        self._replay()
        self.enter()
        if not self._is_turning:
            # Of records that a power cut took away, later ones may still be there.
            self._turn()
        self._commit_database()
        file.sync_all()
        journal.rewind()

    def begin(self) -> None:
        """Begin a transaction, in memory."""
        self._is_begun = True

    def enter(self) -> None:
        """Have a transaction of the database that knows all that only memory knew."""
        if not self.is_entered:
            self._db.execute("BEGIN IMMEDIATE")
            self.is_entered = True
        is_used = self._journal.records or self._idle_turns < IDLE_TURNS
        if is_used and not self._is_turning:
            self._turn()
        self._book.items.write()

    def is_for_journal(self) -> bool:
        """Whether the transaction, of which all is done, is one for the journal, or empty."""
        if not self.is_entered:
            if not self._memtable.deeds:
                return True
            if not self._book.has_references and not self._memtable.is_heavy:
                is_idle, self._idle_turns = self._idle_turns >= IDLE_TURNS, 0
                record = encode_deeds(self._memtable.deeds)
                if not is_idle and self._journal.takes(record):
                    self._record = record
                    return True
        self.enter()
        return False

    def publish(self) -> None:
        """Write the transaction."""
        record, self._record = self._record, None
        if record is not None and self._append(record):
            self._memtable.deeds.clear()
        elif self.is_entered or record is not None:
            self._commit_database()
        self._is_begun = False

    def commit(self, *, is_durable: bool) -> None:
        """See that it is written; ``is_durable``: and wait until it would survive a power cut."""
        if self._is_begun:
            self.publish()
        if is_durable:
            self._file.sync()
            self._sync_journal()
        self._file.checkpoint()

    def rollback(self) -> None:
        """Undo the transaction; the book reads again what database and journal say."""
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")
        self._is_begun = self.is_entered = self._is_turning = False
        self._record = None
        self._idle_turns = IDLE_TURNS
        self._book.reload()
        self._replay()

    def write_down(self) -> None:
        """Between transactions: write into the database what only the journal has."""
        if self._memtable.is_dirty:
            self._commit_database()

    def close(self) -> None:
        """Write down what there is, and let go of the journal."""
        try:
            if not self._is_begun:
                # If it can't be, because the disk is full, the journal has it.
                with contextlib.suppress(apsw.Error):
                    self.write_down()
        finally:
            self._journal.close()

    def _turn(self) -> None:
        """End the journal's generation with this transaction.

        Each one does, lest records that rest on it outlive it in a power cut. While the
        journal is not used none does, and the first that it could take does instead of it.
        """
        generation = self._journal.next_generation
        self._db.execute("UPDATE meta SET value = ? WHERE name = 'journal'", (generation,))
        self._is_turning = True
        self._idle_turns += 1

    def _commit_database(self) -> None:
        self.enter()
        self._db.execute("COMMIT")
        self.is_entered = False
        if self._is_turning:
            self._is_turning = False
            self._journal.turn()
            if self._journal.is_long:
                # The lap is written over from here on.
                self._file.sync()
                self._journal.rewind()

    def _append(self, record: bytes) -> bool:
        try:
            return self._journal.append(record)
        except OSError as error:
            raise StoreError(
                f"{self._journal_path} can't be written ({error}); see to its disk and restart"
            ) from error

    def _sync_journal(self) -> None:
        try:
            self._journal.sync()
        except OSError as error:
            raise StoreError(
                f"{self._journal_path} can't be flushed to its disk ({error}); what was "
                "acknowledged is kept, what came after is unknown. See to the disk and restart"
            ) from error

    def _replay(self) -> None:
        """Do again what the journal has and the database does not."""
        for record in self._journal.records:
            for deed in decode_deeds(record):
                if isinstance(deed, Exchanging):
                    items.carry_out(self._book, deed.taker, deed.call, deed.act)
                elif isinstance(deed, Noting):
                    self._memtable.note(deed.taker, deed.call, deed.answer)
                else:
                    self._memtable.save(deed.number, deed.state)
            self._memtable.is_dirty = True
