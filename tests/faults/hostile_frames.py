"""A million frames that nobody should send, at the code that reads them and at a live server.

    python tests/faults/hostile_frames.py                  # 1,000,000 and 1,000,000
    python tests/faults/hostile_frames.py --live 100000 --seed 7
    python tests/faults/hostile_frames.py --atheris 300    # seconds, guided by coverage

Frames are made of every message of the protocol: bytes are flipped, cut,
doubled and spliced, or single values are replaced by extreme ones, so that
the frame stays legal and is acted upon. What is read must be a message or a
``WireError``; a live server must answer others, keep its memory, and write no
traceback. A failure prints the seed that repeats it.
"""

import argparse
import contextlib
import itertools
import os
import pickle
import random
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import psutil

import multihost
from multihost.errors import ConfigError
from multihost.runtime.join import Join, parse_join
from multihost.runtime.plain import PlainReader, plain_frame
from multihost.server.managers.framing import Framer, FramingError, frame
from multihost.server.managers.reading import UnreadableError, read_request, read_usual_put
from multihost.testing import Cluster
from multihost.testing.samples import Stuff, samples
from multihost.testing.stranger import Stranger
from multihost.wire import message as m
from multihost.wire.codec import WireError, decode_from_peer, decode_from_server, encode
from multihost.wire.session import LEGAL_FROM_PEER, IllegalMessageError, Phase, Session

DIGEST = b"d" * 32
STUFF = Stuff(
    data=(DIGEST, b"", b"x" * 300),
    texts=("name", "", "x" * 150),
    numbers=(1, 0, -1, 100, 2**31, 2**63 - 1, -(2**63)),
)
OTHERS = 300
"""Queues made before that of the well-behaved client: no usual number is its own."""
EXTREMES = (
    *(None, True, 0, -1, 1, 2**31, 2**63 - 1, -(2**63), 2**64 - 1),
    *(0.0, -1.5, 1e308, float("inf"), float("nan")),
    *("", "\0", "name", "\ud7ff" * 50, "x" * 5000, b"", DIGEST, b"\xff" * 5000),
    *([], [[]], [[[[[[[[]]]]]]]], [1] * 300, {}, {"a": {"a": {}}}),
)
BURST = 8
"""Frames sent to a live server before it is asked whether it is there."""


class Fuzz:
    """Frames from one seed."""

    def __init__(self, seed, kinds, *, legal):
        """``legal``: the share of frames that only say extreme things, in due form."""
        self.legal = legal
        self.random = random.Random(seed)
        self.seeds = [encode([each]) for kind in kinds for each in samples(kind, STUFF)]
        self.plain = [msgspec.msgpack.decode(seed) for seed in self.seeds]

    def frame(self):
        """The next frame."""
        if self.random.random() < self.legal:
            return self.random.choice(self.seeds)
        make = (self._replaced, self._replaced, self._mutated, self._mutated, self._noise)
        return self.random.choice(make)()

    def mutate(self, data):
        """Bytes with a few changes."""
        dice, data = self.random, bytearray(data)
        for _ in range(dice.randint(1, 4)):
            at = dice.randrange(len(data) + 1)
            deed = dice.randrange(5)
            if deed == 0 and data:
                data[at % len(data)] = dice.randrange(256)
            elif deed == 1:
                data[at:at] = dice.randbytes(dice.randint(1, 8))
            elif deed == 2:
                del data[at : at + dice.randint(1, 8)]
            elif deed == 3:
                data[at:at] = data[dice.randrange(len(data) + 1) :][:64]
            else:
                length = dice.choice((b"\xdd", b"\xdf", b"\xc6", b"\xdb"))
                data[at:at] = length + dice.randbytes(4)
        return bytes(data)

    def _noise(self):
        return self.random.randbytes(self.random.randrange(64))

    def _mutated(self):
        return self.mutate(self.random.choice(self.seeds))

    def _replaced(self):
        """A batch of messages in which a value or two are others."""
        dice = self.random
        batch = [self._with_extreme(dice.choice(self.plain)[0]) for _ in range(dice.randint(1, 3))]
        return msgspec.msgpack.encode(batch)

    def _with_extreme(self, value, depth=0):
        if not isinstance(value, list) or len(value) < 2 or depth > 3:
            return self.random.choice(EXTREMES)
        at = self.random.randrange(1, len(value))
        inner = value[at]
        if isinstance(inner, list) and inner and self.random.random() < 0.8:
            new = self._with_extreme(inner, depth + 1)
        else:
            new = self.random.choice(EXTREMES)
        return [*value[:at], new, *value[at + 1 :]]


# what reads --------------------------------------------------------------------------------


def read_frame(data):
    """Whatever is decoded is a message, and is legal or refused by the table."""
    for decode in (decode_from_peer, decode_from_server):
        try:
            messages = decode(data)
        except WireError:
            continue
        assert all(isinstance(message, m.Message) for message in messages)
        if decode is decode_from_peer:
            session = Session(None)
            with contextlib.suppress(IllegalMessageError):
                for message in messages:
                    session.received(message)


def read_socket(data):
    """Bytes of a WebSocket: plain frames come out, the rest is left, and nothing is kept."""
    reader = PlainReader(is_masked=True, limit_bytes=1 << 16)
    middle = len(data) // 2
    for piece in (data[:middle], data[middle:]):
        payloads, rest = reader.feed(piece)
        assert all(len(payload) <= 1 << 16 for payload in payloads)
        if rest:
            break


def read_managers(data):
    """Bytes of a managers' client: requests, or errors that are meant for that."""
    with contextlib.suppress(FramingError):
        for message in Framer(1 << 16).feed(frame(data) + data):
            read_usual_put(message)
            with contextlib.suppress(UnreadableError):
                read_request(message)


def read_join(data):
    """A join string is read, or refused with a sentence."""
    with contextlib.suppress(ConfigError):
        parse_join(data.decode("latin-1"))


READERS = (read_frame, read_socket, read_managers, read_join)


def fuzz_readers(count, seed):
    """Give the readers ``count`` inputs."""
    fuzz = Fuzz(seed, [m.FromPeer, m.FromServer], legal=0.1)
    requests = [
        pickle.dumps(("q:name", method, args, {}), protocol)
        for method, args in (("put", ([1, "two", b"3"],)), ("get", (True, 2.5)), ("qsize", ()))
        for protocol in range(6)
    ]
    join = Join(("https://host:7077",), "ab" * 32, "mhk_key", DIGEST).text().encode()
    for number in range(count):
        turn = number % 10
        if turn < 7:
            read_frame(fuzz.frame())
        elif turn == 7:
            read_socket(fuzz.mutate(b"".join(plain_frame(fuzz.frame(), is_masked=True))))
        elif turn == 8:
            read_managers(fuzz.mutate(fuzz.random.choice(requests)))
        else:
            read_join(fuzz.mutate(join))


# a live server -----------------------------------------------------------------------------


@dataclass
class Report:
    """What a server went through."""

    frames: int = 0
    connections: int = 0
    refused: int = 0
    grown_bytes: int = 0
    done_beside: int = 0
    errors: list[str] = field(default_factory=list)


def fuzz_server(cluster, count, seed):
    """Send a running server ``count`` frames, while a well-behaved client works beside."""
    report, stop = Report(), threading.Event()
    server = psutil.Process(cluster.server.pid)
    beside = threading.Thread(target=_work_beside, args=(cluster, report, stop))
    beside.start()
    before = 0
    try:
        for role in itertools.cycle(m.Role):
            if report.frames >= count:
                break
            kinds = LEGAL_FROM_PEER[role, Phase.OPEN] - {m.Goodbye}
            kinds = sorted(kinds, key=lambda kind: kind.__name__)
            fuzz = Fuzz(f"{seed}/{role}/{report.frames}", kinds, legal=0.85)
            until = min(count, report.frames + max(1000, count // 20))
            while report.frames < until:
                _one_connection(cluster, role, fuzz, report)
            before = before or server.memory_info().rss  # once it is warm
    finally:
        stop.set()
        beside.join()
    report.grown_bytes = server.memory_info().rss - before
    if "Traceback" in cluster.log:
        at = cluster.log.index("Traceback")
        report.errors.append(f"the server's log has:\n{cluster.log[at : at + 3000]}")
    return report


def _one_connection(cluster, role, fuzz, report):
    report.connections += 1
    with Stranger(cluster.url, cluster.key, role) as stranger:
        if fuzz.random.random() < 0.05:
            # Some don't even come to the point of showing the key.
            stranger.upgrade()
            stranger.send_frame(fuzz.frame())
            report.frames += 1
            return
        stranger.enter()
        while not stranger.is_closed:
            for _ in range(BURST):
                stranger.send_frame(fuzz.frame())
            report.frames += BURST
            if not stranger.is_served():
                report.refused += 1
            elif fuzz.random.random() < 0.02:
                return


def _work_beside(cluster, report, stop):
    try:
        with multihost.connect(cluster.url, cluster.key) as client:
            for number in range(OTHERS):
                client.queue(f"other {number}").qsize()
            queue = client.queue("beside")
            while not stop.is_set():
                token = os.urandom(8)
                queue.put(token)
                assert queue.get() == token
                report.done_beside += 1
                stop.wait(0.02)
    except Exception as error:  # told by who reads the report
        report.errors.append(f"the well-behaved client failed: {error!r}")


def fuzz_guided(seconds):
    """Let atheris look for inputs that nobody thought of."""
    import atheris

    with atheris.instrument_imports():
        fuzz = Fuzz(0, [m.FromPeer, m.FromServer], legal=0)

    def one(data):
        if data:
            READERS[data[0] % len(READERS)](data[1:])

    corpus = Path(tempfile.mkdtemp(prefix="multihost-corpus-"))
    for number, seed in enumerate(fuzz.seeds):
        (corpus / str(number)).write_bytes(b"\0" + seed)
    atheris.instrument_all()
    atheris.Setup([sys.argv[0], f"-max_total_time={seconds}", "-max_len=4096", str(corpus)], one)
    atheris.Fuzz()


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--live", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--atheris", type=int, metavar="SECONDS")
    options = parser.parse_args()
    if options.atheris:
        fuzz_guided(options.atheris)
    print(f"seed {options.seed}", flush=True)
    began = time.monotonic()
    fuzz_readers(options.frames, options.seed)
    print(f"{options.frames} inputs read in {time.monotonic() - began:.0f} s")
    began = time.monotonic()
    with Cluster(workers=0) as cluster:
        report = fuzz_server(cluster, options.live, options.seed)
        took_s = time.monotonic() - began
        print(
            f"{report.frames} frames sent over {report.connections} connections, of which "
            f"the server ended {report.refused}, in {took_s:.0f} s; its memory grew by "
            f"{report.grown_bytes / 2**20:.0f} MiB; {report.done_beside} exchanges beside"
        )
    for error in report.errors:
        print(error)
    return 1 if report.errors else 0


if __name__ == "__main__":
    sys.exit(main())
