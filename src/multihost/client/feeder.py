"""The input of one ``imap``, pulled by a thread while its results are being read."""

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from multihost.client.arrivals import BlockingArrivals
from multihost.client.crew import Crew
from multihost.client.packing import as_payload, label_of, pack_call, pack_items
from multihost.core.job import Style
from multihost.errors import ConnectionLost, TaskCancelled

FEED_AT_ONCE = 1_000
"""Inputs that are submitted by the caller itself; more are fed by a thread."""
FEED_WINDOW = 20_000
"""Unfinished tasks of one ``imap`` above which its input is not pulled further."""


def chunks(iterable: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Lists of ``size`` items, the last one shorter."""
    iterator = iter(iterable)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk


class Feeder(threading.Thread):
    """Pulls an input and submits it, as the task thread of the standard library's pool would.

    It holds no reference to the pool, and waits while too much is unfinished.
    """

    def __init__(
        self,
        crew: Crew,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int,
        arrivals: BlockingArrivals,
    ) -> None:
        """Submit calls of ``func``; outcomes go to ``arrivals``."""
        super().__init__(name="multihost-pool-feeder", daemon=True)
        self.is_short = isinstance(iterable, (list, tuple, range)) and len(iterable) <= FEED_AT_ONCE
        self._crew = crew
        self._func = func
        self._label = label_of(func)
        self._iterable: Iterable[Any] = iterable
        self._chunksize = chunksize
        self._arrivals = arrivals
        self._submitted = 0
        self._lock = threading.Lock()
        self._is_over = False

    def stop(self) -> None:
        """Submit nothing more, even if the input never yields again; tell who reads the results."""
        self._finish(TaskCancelled("the task was given up: its pool was terminated"))
        self._arrivals.stir()

    def run(self) -> None:
        """Submit all of the input; what it raises takes the place of the input's result."""
        try:
            for chunk in chunks(self._iterable, self._chunksize):
                self._wait_for_room()
                with self._lock:
                    if self._is_over:
                        break
                    self._submit(chunk)
        except Exception as error:  # the user's iterable; raised in its place
            self._finish(error)
        except BaseException as error:  # as above, or somebody interrupts the caller himself
            if self.is_short:
                raise
            self._finish(error)
        else:
            self._finish()
        finally:
            self._iterable = ()

    def _finish(self, error: BaseException | None = None) -> None:
        with self._lock:
            if self._is_over:
                return
            self._is_over = True
            if error is not None:
                self._refuse(self._submitted, error)
                self._submitted += 1
            length, arrivals = self._submitted, self._arrivals
        self._tell(lambda: arrivals.end(length))

    def _submit(self, chunk: list[Any]) -> None:
        position = self._submitted
        try:
            if self._chunksize == 1:
                data, is_bound = pack_call((chunk[0],), {}, self._label)
                style = Style.CALL
            else:
                data, is_bound = pack_items(chunk, position * self._chunksize, self._label)
                style = Style.MAP
            stream = self._crew.stream(self._func, style, is_bound=is_bound)
        except Exception as error:  # whatever pickling raises; raised in the input's place
            self._refuse(position, error)
        else:
            stream.append(as_payload(data), self._arrivals, position)
        self._submitted += 1

    def _refuse(self, position: int, error: BaseException) -> None:
        arrivals = self._arrivals
        self._tell(lambda: arrivals.refuse(position, error))

    def _tell(self, call: Callable[[], None]) -> None:
        try:
            self._crew.post(call)
        except ConnectionLost:  # the client is closed: nobody else tells who reads the results
            call()

    def _wait_for_room(self) -> None:
        excess = self._submitted - self._arrivals.arrived - FEED_WINDOW
        if excess > 0:
            self._arrivals.wait_arrived(self._submitted - FEED_WINDOW // 2, lambda: self._is_over)
