"""Every message and every route with every role, as the tables say: nothing is left out."""

import http.client
import json
import os
import re
from typing import get_args

import msgspec
import pytest

from multihost.core.job import JobSpec, Style
from multihost.core.outcome import Ending
from multihost.server.routes import WAYS
from multihost.testing.cluster import Cluster
from multihost.testing.samples import Stuff, samples
from multihost.testing.stranger import Stranger
from multihost.wire import act as a
from multihost.wire import message as m
from multihost.wire.keys import ANYBODY, KeyRole
from multihost.wire.session import LEGAL_FROM_PEER, MAY_SEND, Phase

DIGEST = bytes(32)
EXAMPLES = [
    m.Hello(m.Role.CLIENT, bytes(32)),
    m.Proof(bytes(32)),
    m.Attach(b"c" * 16),
    m.Enlist(b"w" * 16, "w"),
    m.Beat(1),
    m.Goodbye(),
    m.FindBlob(DIGEST, 10),
    m.PutBlob(DIGEST, 10, 0, b"0123456789"),
    m.GetBlob(DIGEST),
    m.Open(1, b"j" * 16, JobSpec(style=Style.COMMAND)),
    m.Add(1, 0, [b"task"]),
    m.Seal(1, 1),
    m.Cancel(1),
    m.Taken(1, 1),
    m.Close(1),
    m.Resize(1),
    m.Call(1, 1, a.OpenQueue("a queue", 0, a.Confirm.NEXT, False)),
    m.Withdraw(1, 1),
    m.EndTaker(1),
    m.Signal(1, 0, 15),
    m.Want(1),
    m.Finished([m.Attempt(1, 1, Ending.OK, b"")]),
    m.GiveBack([m.Held(1, 1)]),
    m.Output(1, 1, 1, b"x"),
    m.Drain(),
    m.Began(1, 1, 1),
]
EXAMPLES += [
    next(samples(kind, Stuff((DIGEST,))))
    for kind in get_args(m.FromPeer)
    if kind not in map(type, EXAMPLES)
]
OPENINGS = {m.Role.CLIENT: m.Attach, m.Role.WORKER: m.Enlist}
SESSION = [each for each in EXAMPLES if not isinstance(each, m.Hello | m.Proof)]


@pytest.fixture(scope="module")
def cluster():
    with Cluster(workers=0) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def keys(cluster):
    return {role: cluster.make_key(role) for role in KeyRole}


def ask(cluster, key, method, path, body=None):
    """Status and content of an answer over HTTP."""
    connection = http.client.HTTPConnection("127.0.0.1", cluster.port, timeout=30)
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    connection.request(method, path, json.dumps(body or {}).encode(), headers)
    answer = connection.getresponse()
    content = json.loads(answer.read())
    connection.close()
    return answer.status, content


def senders(kind):
    """Kinds of peers from which a message is legal in an open session."""
    return [role for role in m.Role if kind in LEGAL_FROM_PEER[role, Phase.OPEN]]


def is_refused(said):
    """Whether one of the server's messages says that the key may not."""
    refused = [
        getattr(each, "code", getattr(getattr(each, "result", None), "code", None))
        in (m.RefusalCode.ROLE, a.RejectCode.ROLE)
        or isinstance(each, m.Forbidden)
        for each in said
    ]
    return any(refused)


def hear(stranger):
    """Everything that the server says up to its answer to a heartbeat, and whether that came."""
    said = []
    stranger.send(m.Beat(77))
    while not stranger.is_closed:
        said += stranger.receive()
        if m.BeatBack(77) in said:
            return said, True
    return said, False


def test_every_message_of_a_peer_has_its_roles():
    assert set(MAY_SEND) == set(get_args(m.FromPeer)) == set(map(type, EXAMPLES))
    assert all(KeyRole.ADMIN in roles for roles in MAY_SEND.values())


def test_every_route_has_its_roles():
    assert [way.path for way in WAYS if way.roles is None] == ["/healthz"]
    assert all(KeyRole.ADMIN in way.roles for way in WAYS if way.roles is not None)


@pytest.mark.parametrize("role", KeyRole)
@pytest.mark.parametrize("peer", m.Role)
def test_a_session_is_opened_only_by_a_key_that_may(cluster, keys, peer, role):
    with Stranger(cluster.url, keys[role].encode(), peer) as stranger:
        stranger.upgrade()
        stranger.prove()
        kind = OPENINGS[peer]
        example = next(each for each in EXAMPLES if isinstance(each, kind))
        stranger.send(msgspec.structs.replace(example, session=os.urandom(16)))
        (answer,) = stranger.receive()
        if role in MAY_SEND[kind]:
            assert isinstance(answer, m.Welcome)
        else:
            assert answer.code is m.DenialCode.ROLE
            assert f"the role {role}" in answer.message
            assert f"opening a {peer}'s session takes " in answer.message
            assert stranger.receive() == []


@pytest.mark.parametrize("role", KeyRole)
@pytest.mark.parametrize("message", SESSION, ids=lambda message: type(message).__name__)
def test_a_message_is_served_only_with_a_role_that_may(cluster, keys, message, role):
    kind = type(message)
    for peer in senders(kind):
        if role not in MAY_SEND[OPENINGS[peer]]:
            continue  # it never gets so far, as the test above shows
        with Stranger(cluster.url, keys[role].encode(), peer) as stranger:
            stranger.enter()
            stranger.send(message)
            said, is_served = hear(stranger)
        assert is_refused(said) is (role not in MAY_SEND[kind])
        assert is_served is (kind is not m.Goodbye)


def test_whoever_can_open_no_session_can_send_nothing_else_either():
    """Else the test above would have left out a pair that the table allows."""
    for kind, roles in MAY_SEND.items():
        for peer in senders(kind):
            assert roles & MAY_SEND[OPENINGS[peer]] or roles == ANYBODY


def test_what_was_refused_has_done_nothing(cluster, keys):
    admin, before = keys[KeyRole.ADMIN], {}
    paths = ("/api/jobs", "/api/item-queues")
    before = [ask(cluster, admin, "GET", path) for path in paths]
    with Stranger(cluster.url, keys[KeyRole.VIEW].encode()) as stranger:
        stranger.enter()
        stranger.send(
            m.Open(9, b"v" * 16, JobSpec(style=Style.COMMAND, name="a viewer's")),
            m.Add(9, 0, [b"task"]),
            m.Call(1, 1, a.OpenQueue("a viewer's", 0, a.Confirm.NEXT, False)),
            m.PutBlob(DIGEST, 1, 0, b"x"),
        )
        said, is_served = hear(stranger)
    assert is_served
    assert sum(is_refused([each]) for each in said) == 4
    assert [ask(cluster, admin, "GET", path) for path in paths] == before


@pytest.mark.parametrize("role", [None, *KeyRole])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: f"{way.method} {way.path}")
def test_a_route_serves_only_the_roles_of_its_table(cluster, keys, way, role):
    path = re.sub(r"\{\w+:int\}", "1", way.path)
    path = re.sub(r"\{\w+:path\}", "nothing", path)
    status, content = ask(cluster, keys.get(role), way.method, path)
    if way.roles is None or role in way.roles:
        assert status not in (401, 403), content
    elif role is None:
        assert status == 401
    else:
        assert (status, content["code"]) == (403, "role")
        assert f"the role {role}" in content["error"]


def test_a_path_beside_the_table_is_not_served(cluster, keys):
    connection = http.client.HTTPConnection("127.0.0.1", cluster.port, timeout=30)
    headers = {"Authorization": f"Bearer {keys[KeyRole.ADMIN]}"}
    connection.request("GET", "/api/nothing", headers=headers)
    assert connection.getresponse().status == 404
    connection.close()
