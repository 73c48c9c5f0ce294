"""Who gets a branch when there are many connections already."""

import asyncio
from types import SimpleNamespace
from unittest import mock

import pytest

from multihost.server.branches import MAX_BRANCHES, SHARE, Branches, BranchPeer, open_branch
from multihost.wire import message as m

UID = b"u" * 16


def connection(connections=1, key="own"):
    admission = SimpleNamespace(proved=range(connections), max_connections=100)
    return SimpleNamespace(
        key=SimpleNamespace(id=key), link=mock.Mock(), gateway=SimpleNamespace(admission=admission)
    )


@pytest.fixture
def main():
    main = SimpleNamespace(connection=connection(), session=1)
    main.branches = Branches(main)
    return main


def ask(main, at, ticket=None):
    services = SimpleNamespace(client_peers={UID: main})

    async def opened():
        return open_branch(services, at, m.Branch(UID, ticket or main.branches.ticket))

    return asyncio.run(opened())


def test_there_are_branches_while_others_leave_enough_connections(main):
    assert isinstance(ask(main, connection(int(100 * SHARE))), BranchPeer)
    denied = ask(main, connection(int(100 * SHARE) + 1))
    assert denied.code is m.DenialCode.LIMIT
    assert "max_connections" in denied.message


def test_a_branch_that_ends_makes_room_for_another(main):
    branches = [ask(main, connection()) for _ in range(MAX_BRANCHES)]
    assert ask(main, connection()).code is m.DenialCode.LIMIT
    branches[0].closed("gone")
    assert isinstance(ask(main, connection()), BranchPeer)


def test_when_the_sessions_connection_is_gone_its_branches_are_cut_and_its_ticket_is_void(main):
    at = connection()
    branch = ask(main, at)
    main.branches.close()
    assert at.link.abort.called
    branch.received([m.Call(1, 1, None)])  # what has come already is not done any more
    assert ask(main, connection()).code is m.DenialCode.SESSION


def test_a_branch_is_made_with_the_key_of_its_session(main):
    assert ask(main, connection(key="another")).code is m.DenialCode.SESSION
