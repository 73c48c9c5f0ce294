"""Which of a server's addresses to try next: the first at which anything answers.

A machine has addresses that only some others reach, and a packet to one that
nobody has is answered by nobody. So they are tried side by side, each a moment
after the one before it; nothing is said there but the connection itself.
"""

import queue
import socket
import threading
from collections.abc import Iterator, Sequence

from multihost.runtime.address import parse_url

STAGGER_S = 0.25
"""Head start of an address over the next one."""
CONNECT_ONE_S = 4.0
"""For any of several addresses to answer: a lost packet or two fit in."""


def in_turn(urls: Sequence[str], reasons: dict[str, str]) -> Iterator[str]:
    """The addresses to try, one after another; blocks while none answers.

    Those at which nobody answers are left out, and ``reasons`` says why. A single
    one is tried as it is.
    """
    left = list(urls)
    while len(left) > 1 or (left and len(urls) > 1):
        found = _first_to_answer(left, reasons)
        if found is None:
            return
        left = [url for url in left if url != found and url not in reasons]
        yield found
    yield from left


def _first_to_answer(urls: Sequence[str], reasons: dict[str, str]) -> str | None:
    answers: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
    told = 0
    for asked, url in enumerate(urls, 1):
        # Each in a thread of its own, since looking up a name can't be interrupted.
        threading.Thread(target=_ask, args=(url, answers), daemon=True).start()
        wait_s = STAGGER_S if asked < len(urls) else CONNECT_ONE_S
        while told < asked:
            try:
                found, why = answers.get(timeout=wait_s)
            except queue.Empty:
                break
            if not why:
                return found
            reasons[found] = why
            told += 1
    for url in urls:
        reasons.setdefault(url, f"no answer within {CONNECT_ONE_S:g} s")
    return None


def _ask(url: str, answers: "queue.SimpleQueue[tuple[str, str]]") -> None:
    _, host, port = parse_url(url)
    try:
        socket.create_connection((host, port), CONNECT_ONE_S).close()
    except OSError as error:
        answers.put((url, error.strerror or str(error) or type(error).__name__))
    else:
        answers.put((url, ""))
