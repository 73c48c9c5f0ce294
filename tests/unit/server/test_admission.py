"""Who may connect: claims about the counts, without a socket."""

import asyncio

import pytest

from multihost.server import admission
from multihost.server.admission import Admission, group_of


class Line:
    def __init__(self):
        self.is_cut = False

    def abort(self):
        self.is_cut = True


@pytest.fixture
def arrive():
    """Make an arrival with a line that shows whether it was cut."""

    def make(door, address="192.0.2.1"):
        arrival = door.arrive(address)
        arrival.line = Line()
        return arrival

    return make


def run(test):
    async def main():
        test()

    asyncio.run(main())


def test_strangers_use_up_a_quarter_of_the_descriptors_at_most(arrive):
    def test():
        door = Admission(descriptors=admission.RESERVED_DESCRIPTORS + 400)
        assert door.max_unproved == 100
        assert door.max_connections == 300
        crowd = [arrive(door, f"192.0.2.{n}") for n in range(250)]
        assert door.unproved == 100
        assert [one.line.is_cut for one in crowd] == [True] * 150 + [False] * 100

    run(test)


def test_one_address_makes_room_for_itself_and_leaves_others_alone(arrive):
    def test():
        door = Admission(descriptors=admission.RESERVED_DESCRIPTORS + 400)
        other = arrive(door, "198.51.100.7")
        crowd = [arrive(door) for _ in range(120)]
        assert not other.line.is_cut
        assert sum(one.line.is_cut for one in crowd) == 120 - door.max_per_address
        assert not crowd[-1].line.is_cut

    run(test)


def test_who_has_shown_the_key_is_never_made_to_leave(arrive):
    def test():
        door = Admission(descriptors=admission.RESERVED_DESCRIPTORS + 400)
        member = arrive(door)
        assert member.prove()
        for _ in range(1000):
            arrive(door)
        door.make_room()
        assert not member.line.is_cut
        assert door.proved == {member}

    run(test)


def test_more_members_than_allowed_are_told_what_to_do(arrive):
    def test():
        door = Admission(descriptors=admission.RESERVED_DESCRIPTORS + 40)
        members = []
        for _ in range(door.max_connections):
            members.append(arrive(door))
            assert members[-1].prove()
        late = arrive(door)
        assert not late.prove()
        assert "max_connections" in door.why_full
        assert "ulimit -n" in door.why_full
        members[0].left()
        assert late.prove()

    run(test)


def test_every_count_is_back_at_nothing_when_all_have_left(arrive):
    def test():
        door = Admission()
        crowd = [arrive(door, f"2001:db8::{n}") for n in range(50)]
        for one in crowd[:20]:
            one.prove()
        for one in crowd:
            one.left()
            one.left()
        assert (door.unproved, door.proved, door._by_address) == (0, set(), {})

    run(test)


def test_a_stranger_is_hung_up_on_when_its_time_is_over(arrive, monkeypatch):
    monkeypatch.setattr(admission, "HANDSHAKE_S", 0.0)

    async def main():
        door = Admission()
        stranger, member = arrive(door), arrive(door)
        member.prove()
        await asyncio.sleep(0.01)
        assert (stranger.line.is_cut, member.line.is_cut) == (True, False)
        assert not stranger.prove(), "too late"

    asyncio.run(main())


def test_an_owner_of_many_ipv6_addresses_counts_as_one():
    assert group_of("2001:db8::1") == group_of("2001:db8::ffff:1")
    assert group_of("2001:db8:0:1::1") != group_of("2001:db8:0:2::1")
    assert group_of("fe80::1%eth0") == group_of("fe80::2")
    assert group_of("::ffff:192.0.2.1") == group_of("192.0.2.1") == "192.0.2.1"
    assert group_of("local") == "local"
