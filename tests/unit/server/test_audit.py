"""Claims about the audit trail's lines."""

import asyncio
import logging
import re

import pytest

from multihost.server import audit
from multihost.server.audit import LINES, MAX_COUNTS, Audit
from multihost.store.access import AccessKey
from multihost.wire.keys import KeyRole

ADDRESS = "192.0.2.7:4000"


def make_key(name="laptop"):
    return AccessKey("0000000a", name, KeyRole.VIEW, bytes(32), 0.0)


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO, audit.LOGGER)
    return lambda: [record.getMessage() for record in caplog.records]


class Told(logging.Logger):
    """Says when a count was written."""

    def __init__(self, counted):
        super().__init__(audit.LOGGER)
        self.parent = logging.getLogger()
        self.counted = counted

    def warning(self, text, line):
        super().warning(text, line)
        if "more times" in line:
            self.counted.set()


def run(act):
    async def main():
        act(Audit())

    asyncio.run(main())


def test_a_line_has_time_address_key_and_what(lines):
    run(lambda log: log.did(ADDRESS, make_key(), "made a key"))
    (line,) = lines()
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ audit done address=192\.0\.2\.7:4000 key=0000000a "
        r'name="laptop" what="made a key"',
        line,
    )


@pytest.mark.parametrize(
    "name", ["two\nlines", 'a "quote', "back\\slash", "\x1b[31mred", "\u2028", "\u202ertl"]
)
def test_a_name_stays_within_its_quotes_and_its_line(lines, name):
    run(lambda log: log.refused(ADDRESS, make_key(name), "this"))
    (line,) = lines()
    assert line.isprintable()
    quoted = re.search(r'name="((?:[^"\\]|\\.)*)" what="this"$', line)
    assert quoted is not None


def test_the_same_refusal_over_and_over_is_counted(lines, monkeypatch):
    monkeypatch.setattr(audit, "WINDOW_S", 0.01)

    async def main():
        log, counted = Audit(), asyncio.Event()
        monkeypatch.setattr(audit, "_log", Told(counted))
        for number in range(LINES + 7):
            log.refused(f"192.0.2.7:{number}", None, "a handshake")
        log.refused("192.0.2.8:1", None, "a handshake")
        log.refused(ADDRESS, None, "something else")
        assert len(lines()) == LINES + 2
        await asyncio.wait_for(counted.wait(), 10)
        log.refused(ADDRESS, None, "a handshake")

    asyncio.run(main())
    assert 'what="a handshake (7 more times within 0.01 s)"' in lines()[-2]
    assert lines()[-1].endswith('what="a handshake"')


def test_refusals_from_everywhere_are_forgotten_in_turn_and_not_lost(lines):
    def act(log):
        for _ in range(LINES + 1):
            log.refused("2001:db8::1", None, "this")
        for number in range(MAX_COUNTS):
            log.refused(f"10.0.{number // 256}.{number % 256}:1", None, "this")
        assert len(log._counts) == MAX_COUNTS

    run(act)
    assert sum("(1 more times" in line for line in lines()) == 1
    assert len(lines()) == LINES + 1 + MAX_COUNTS


def test_neighbours_in_one_network_of_ipv6_count_as_one(lines):
    def act(log):
        for number in range(LINES * 2):
            log.refused(f"[2001:db8::{number}]:1", None, "this")

    run(act)
    assert len(lines()) == LINES
