"""Queues of items for blocking programs, with the signatures of the standard library.

An item that was taken is leased: if its taker dies before it is done with the
item, another gets it. ``confirm`` says when it is done with:

- ``"next"``: when it takes the next one, or ends in good order. What it puts
  into unbounded queues meanwhile goes out in the same transaction.
- ``"task_done"``: when it calls ``task_done``.
- ``"get"``: at once, as with the standard library: an item dies with its taker.
"""

import inspect
import pickle
import traceback
from collections.abc import Callable, Coroutine, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from multihost.client.arguments import whole
from multihost.client.handles import Handle, wait_of
from multihost.client.items import Items
from multihost.client.packing import pack_item
from multihost.client.taker import Taker
from multihost.client.thread_taker import run
from multihost.errors import PayloadError
from multihost.wire.act import Item

if TYPE_CHECKING:
    from multihost.client.client import Client


SEM_VALUE_MAX = 2**31 - 1
"""What the standard library's queues have for a bound when they have none."""


class Queue(Handle):
    """A queue on the server, for any number of threads, processes and machines.

    Without a ``name`` it lives with the program that made it; with one it lasts,
    and strangers find it by its name. Every ``put`` is on disk when it returns,
    unless it belongs to an item that is held (see the module).
    """

    _confirm: str | None = None
    """What is asked for where ``confirm`` is not given; None: whatever the queue has."""
    _is_closed = False

    def __init__(
        self,
        maxsize: int = 0,
        *,
        name: str | None = None,
        confirm: str | None = None,
        client: "Client | None" = None,
        ctx: object = None,
    ) -> None:
        """A queue for ``maxsize`` items (0: no bound), or the one of this ``name``.

        One that exists has the settings of who made it: others that are asked for
        raise KeyConflict. ``client``: the one that pools use, if not given. ``ctx``
        is accepted and has no meaning.
        """
        policy = confirm if confirm is not None else self._confirm
        taker = self._attach(client, name)
        is_transient = name is None
        self._items = run(Items.open(taker, self._name, maxsize, policy, is_transient=is_transient))

    # the standard library's verbs ------------------------------------------------------

    def put(self, obj: Any, block: bool = True, timeout: float | None = None) -> None:  # noqa: FBT001, FBT002 - as above
        """Add an item; raises queue.Full if there is no room in ``timeout`` seconds.

        What can't be pickled raises PayloadError where the queue has a name. Where it has none,
        as in the standard library, it is dropped, reported by ``_on_queue_feeder_error``.
        """
        if self._is_closed:
            self._check_open()
        try:
            packed = pack_item(obj)
        except Exception as error:  # whatever pickling raises
            if self.name is not None:
                raise
            cause = error.__cause__ if isinstance(error, PayloadError) else None
            self._on_queue_feeder_error(cause or error, obj)
            return
        taker = self._taker()
        if not self._items.stage(taker, packed):
            run(self._items.put(taker, packed, wait_of(block, timeout)))

    def get(self, block: bool = True, timeout: float | None = None) -> Any:  # noqa: FBT001, FBT002 - as above
        """The next item; raises queue.Empty if none comes in ``timeout`` seconds.

        While there is no connection to the server the time stands still.
        """
        if self._is_closed:
            self._check_open()
        wait_s = None if block and timeout is None else wait_of(block, timeout)
        _, (data,) = run(self._items.take(self._taker(), 1, wait_s))
        return pickle.loads(data)

    def put_nowait(self, obj: Any) -> None:
        """Add an item; raises queue.Full if there is no room."""
        self.put(obj, False)

    def get_nowait(self) -> Any:
        """The next item; raises queue.Empty if there is none."""
        return self.get(False)

    def qsize(self) -> int:
        """Items that wait to be taken."""
        return run(self._items.measure(self._taker())).waiting

    def empty(self) -> bool:
        """Whether nothing waits to be taken."""
        return not self.qsize()

    def full(self) -> bool:
        """Whether there is no room for another item."""
        size = run(self._items.measure(self._taker()))
        return bool(size.limit) and size.waiting >= size.limit

    def close(self) -> None:
        """This process uses the queue no more: what the calling thread took of it is done with."""
        if not self._is_closed:
            self._is_closed = True
            if self._client is not None and self._client.is_usable:
                run(self._items.leave(self._taker()))

    def join_thread(self) -> None:
        """Return at once: there is no thread that would have to end. After ``close`` only."""
        assert self._is_closed, f"Queue {self!r} not closed"

    def cancel_join_thread(self) -> None:
        """Do nothing: there is no thread that an exit would wait for."""

    @property
    def _reader(self) -> "_End":
        return _End(self)

    _writer = _reader

    @property
    def _maxsize(self) -> int:
        return self._items.limit or SEM_VALUE_MAX

    # beyond it --------------------------------------------------------------------------

    def put_many(
        self,
        objs: Iterable[Any],
        block: bool = True,  # noqa: FBT001, FBT002 - as ``put``
        timeout: float | None = None,
    ) -> None:
        """Add items, up to a thousand in one transaction.

        ``timeout`` is for each of them; when queue.Full is raised, those before are in.
        """
        self._check_open()
        packed = map(pack_item, objs)
        run(self._items.put_many(self._taker(), packed, wait_of(block, timeout)))

    def get_many(
        self,
        count: int,
        block: bool = True,  # noqa: FBT001, FBT002 - as ``get``
        timeout: float | None = None,
    ) -> list[Any]:
        """Up to ``count`` items, at least one; raises queue.Empty as ``get`` does."""
        self._check_open()
        most = whole("count", count)
        _, payloads = run(self._items.take(self._taker(), most, wait_of(block, timeout)))
        return list(map(pickle.loads, payloads))

    def take(self, block: bool = True, timeout: float | None = None) -> "Take":  # noqa: FBT001, FBT002 - as ``get``
        """``with queue.take() as item:`` an item that is done with when the block ends.

        If the block raises, the item goes to others and what was put in it is void, but for
        puts into bounded queues: these are done when they return.
        """
        return Take(self, wait_of(block, timeout))

    @property
    def maxsize(self) -> int:
        """How many items may wait in it; 0: no bound."""
        return self._items.limit

    @property
    def confirm(self) -> str:
        """When an item that was taken is done with."""
        return self._items.confirm.name.lower()

    def drop(self) -> None:
        """Delete the queue and all that is in it, for everybody."""
        run(self._items.drop(self._taker()))
        self._is_own = False

    # within ------------------------------------------------------------------------------

    @staticmethod
    def _on_queue_feeder_error(e: BaseException, obj: Any) -> None:
        """Report an item that can't be pickled and was dropped; for subclasses to replace."""
        kind = type(obj)
        place = inspect.currentframe()
        while place is not None and place.f_globals is globals():
            place = place.f_back
        where = f"{place.f_code.co_filename}:{place.f_lineno}" if place is not None else "?"
        e.add_note(
            f"multihost: the item ({kind.__module__}.{kind.__qualname__}) that {where} put was "
            "dropped, as in multiprocessing; a queue with a name= raises instead"
        )
        traceback.print_exception(e)

    def _check_open(self) -> None:
        if self._is_closed:
            raise ValueError(f"Queue {self!r} is closed")

    def _dropper(self) -> Callable[[Taker], Coroutine[Any, Any, None]] | None:
        return self._items.drop if "_items" in self.__dict__ else None

    def __repr__(self) -> str:
        what = repr(self.name) if self.name else f"#{self._items.number}"
        return f"<multihost.{type(self).__name__} {what}>"


class Take:
    """An item in a ``with`` block."""

    _held: tuple[Item, ...] = ()

    def __init__(self, queue: Queue, wait_s: float | None) -> None:
        """Take from ``queue`` when the block is entered."""
        self._queue = queue
        self._wait_s = wait_s
        self._taker: Taker

    def __enter__(self) -> Any:
        queue = self._queue
        queue._check_open()
        self._taker = taker = queue._taker()
        latest = taker.taking.latest
        try:
            held, (data,) = run(queue._items.take(taker, 1, self._wait_s, keeps=True))
            self._held = tuple(held)
            item = pickle.loads(data)
        except BaseException:  # interrupted, or it can't be unpickled: the block never begins
            self._held = ()
            taker.give_back_soon(taker.taken_since(latest))
            raise
        return item

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        queue, held, taker = self._queue, self._held, self._taker
        try:
            if kind is None:
                run(queue._items.confirm_kept(taker, held))
            else:
                run(queue._items.give_back(taker, held))
        except BaseException:  # interrupted, or lost: the block has ended all the same
            numbers = [item.number for item in held]
            if kind is None:
                taker.let_go(numbers)
            else:
                taker.undo_soon(numbers)
            raise
        finally:
            self._held = ()

    def __del__(self) -> None:
        # A signal's exception came between the block's end and ``__exit__``.
        if self._held:
            numbers = [item.number for item in self._held]
            try:
                self._taker.undo_soon(numbers)
            except BaseException:  # another signal's; it is only reported, and the item is held on
                self._taker.undo_soon(numbers)
                raise


class JoinableQueue(Queue):
    """A queue whose items are done with when ``task_done`` is called; ``join`` waits for all."""

    _confirm = "task_done"

    def task_done(self) -> None:
        """The oldest item taken is done with; raises ValueError when called too often."""
        run(self._items.task_done(self._taker()))

    def join(self) -> None:
        """Wait until ``task_done`` was called for every item that was put."""
        run(self._items.join(self._taker()))


class SimpleQueue:
    """A queue with nothing but ``put``, ``get``, ``empty`` and ``close``; unbounded."""

    def __init__(
        self, *, name: str | None = None, client: "Client | None" = None, ctx: object = None
    ) -> None:
        """A queue, or the one of this ``name``; see ``Queue``."""
        self._queue = Queue(name=name, client=client)

    def put(self, obj: Any) -> None:
        """Add an item; raises PayloadError when it can't be pickled."""
        queue = self._queue
        queue._check_open()
        run(queue._items.put(queue._taker(), pack_item(obj), None))

    def get(self) -> Any:
        """The next item, waiting for it."""
        return self._queue.get()

    def empty(self) -> bool:
        """Whether nothing waits to be taken."""
        return self._queue.empty()

    def close(self) -> None:
        """This process uses the queue no more; as ``Queue.close``."""
        self._queue.close()

    # within ------------------------------------------------------------------------------

    def _poll(self) -> bool:
        return self._reader.poll()

    @property
    def _reader(self) -> "_End":
        return _End(self._queue)

    _writer = _reader


class _End:
    """What programs that look into the standard library's queues find in the place of pipes."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self.close = queue.close

    @property
    def closed(self) -> bool:
        """Whether this process has closed the queue."""
        return self._queue._is_closed

    def poll(self, timeout: float | None = 0.0) -> bool:
        """Whether something can be taken now."""
        if timeout != 0:
            self._refuse()
        return not self._queue.empty()

    def fileno(self) -> NoReturn:
        """Refuse to be waited for by ``connection.wait`` and ``select``."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise NotImplementedError(
            "a queue can't be waited for without taking from it; use a Queue's get(timeout=...), a "
            "thread for each of several queues, or a Pipe"
        )
