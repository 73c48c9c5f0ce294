"""Claims about the keys of a server: names, ends, and what is forgotten."""

import asyncio

import pytest

from multihost.errors import BadRequest, StoreFull
from multihost.runtime import clock
from multihost.server import keyring as module
from multihost.server.admission import Admission
from multihost.server.keyring import KEPT_S, Keyring
from multihost.testing.model import ModelDisk, ModelStore
from multihost.wire.keys import OWN_KEY, KeyRole, parse_key

OWN = b"the text in the key file"
START = 1_800_000_000.0
VIEW = KeyRole.VIEW


class Committer:
    """One transaction for each question."""

    def __init__(self, store):
        self.store = store

    async def ask(self, run, *, is_durable=False):
        await asyncio.sleep(0)
        assert is_durable
        self.store.begin()
        result = run(self.store, START)
        self.store.commit(is_durable=True)
        return result


class Line:
    def __init__(self):
        self.is_cut = False

    def abort(self):
        self.is_cut = True


class World:
    """A keyring over a disk, and a clock that is told."""

    def __init__(self, monkeypatch):
        self.now = START
        self.disk = ModelDisk()
        monkeypatch.setattr(clock, "wall", lambda: self.now)

    def open(self, own=OWN):
        self.admission = Admission()
        return Keyring(own, Committer(ModelStore(self.disk)), self.admission)

    def come_in(self, key):
        arrival = self.admission.arrive("192.0.2.7")
        arrival.line = Line()
        assert arrival.prove()
        arrival.key = key.id
        return arrival.line


@pytest.fixture
def world(monkeypatch):
    return World(monkeypatch)


def in_loop(test):
    """The test as a coroutine, run."""

    def wrapper(world):
        asyncio.run(test(world))

    wrapper.__name__ = test.__name__
    return wrapper


@in_loop
async def test_a_key_is_known_by_its_text_and_by_no_other(world):
    keyring = world.open()
    entry, text = await keyring.make(VIEW, "", None)
    assert keyring.who_sent(text.encode()) == entry
    assert entry.name == f"view-{entry.id}"
    for wrong in (text[:-1], text[:-1] + "x", text + "x", text.replace(entry.id, "ffffffff")):
        assert keyring.who_sent(wrong.encode()) is None
    assert keyring.who_sent(entry.hash) is None


@in_loop
async def test_the_servers_own_key_is_an_admins_and_can_not_be_revoked(world):
    keyring = world.open()
    own = keyring.who_sent(OWN)
    assert (own.id, own.role, own.ended_at) == (OWN_KEY, KeyRole.ADMIN, None)
    with pytest.raises(BadRequest, match="delete the file"):
        await keyring.revoke(OWN_KEY)
    assert keyring.who_sent(OWN) == own


@in_loop
async def test_a_key_file_with_a_key_of_the_new_form_is_the_servers_own(world):
    text = f"mhk_0123abcd_{'A' * 43}".encode()
    keyring = world.open(text)
    assert keyring.who_sent(text).role is KeyRole.ADMIN
    with pytest.raises(BadRequest, match="delete the file"):
        await keyring.revoke("0123abcd")


@in_loop
async def test_an_unknown_keys_hash_is_always_the_same_and_nobodys(world):
    keyring = world.open()
    assert keyring.hash_of("ffffffff") == keyring.hash_of("ffffffff")
    assert keyring.hash_of("ffffffff") != keyring.hash_of("fffffffe")
    assert keyring.hash_of("ffffffff") != world.open().hash_of("ffffffff")


@in_loop
async def test_revoking_cuts_those_who_came_in_with_it_alone(world):
    keyring = world.open()
    mine, _ = await keyring.make(VIEW, "mine", None)
    other, _ = await keyring.make(VIEW, "other", None)
    lines = [world.come_in(key) for key in (mine, mine, other, keyring.own)]
    await keyring.revoke("mine")
    assert [line.is_cut for line in lines] == [True, True, False, False]
    again = await keyring.revoke(mine.id)
    assert again.revoked_at == START


@in_loop
async def test_a_key_that_could_not_be_noted_as_revoked_is_revoked_all_the_same(world):
    keyring = world.open()
    _, text = await keyring.make(VIEW, "mine", None)

    async def refuse(*_, **__):
        raise OSError("the disk is full")

    keyring._committer.ask = refuse
    with pytest.raises(OSError, match="full"):
        await keyring.revoke("mine")
    assert not keyring.who_sent(text.encode()).is_live(world.now)


@in_loop
async def test_revoking_again_notes_what_could_not_be_noted_before(world):
    keyring = world.open()
    await keyring.make(VIEW, "mine", None)
    ask = keyring._committer.ask

    async def refuse(*_, **__):
        raise StoreFull("the disk is full")

    keyring._committer.ask = refuse
    for _ in range(2):
        with pytest.raises(StoreFull):
            await keyring.revoke("mine")
    keyring._committer.ask = ask
    world.now += 1.0
    assert (await keyring.revoke("mine")).revoked_at == START
    (stored,) = (key for key in world.open().listed() if key.name == "mine")
    assert stored.revoked_at == START


@in_loop
async def test_an_expired_key_cuts_those_who_came_in_with_it(world):
    keyring = world.open()
    key, _ = await keyring.make(VIEW, "mine", 30.0)
    line = world.come_in(key)
    keyring._watch_expiry()
    assert not line.is_cut
    world.now += 30.0
    keyring._watch_expiry()
    assert line.is_cut
    assert keyring._timer is None  # an idle server does no work


@in_loop
async def test_a_clock_that_is_set_forward_is_noticed(world):
    keyring = world.open()
    await keyring.make(VIEW, "mine", 86400.0)
    loop = asyncio.get_running_loop()
    assert keyring._timer.when() - loop.time() <= module.LOOK_AGAIN_S


@in_loop
async def test_keys_are_found_again_after_a_restart_ended_ones_too(world):
    keyring = world.open()
    _, live = await keyring.make(VIEW, "live", None)
    _, ended = await keyring.make(VIEW, "ended", None)
    await keyring.revoke("ended")
    keyring = world.open(b"another text in the key file")
    assert keyring.who_sent(live.encode()).is_live(world.now)
    assert not keyring.who_sent(ended.encode()).is_live(world.now)
    assert keyring.who_sent(OWN) is None


@in_loop
async def test_a_key_is_forgotten_long_after_it_ended(world):
    keyring = world.open()
    _, text = await keyring.make(VIEW, "mine", 10.0)
    _, lasting = await keyring.make(VIEW, "lasting", None)
    world.now += 10.0 + KEPT_S
    await keyring.make(VIEW, "", None)
    assert keyring.who_sent(text.encode()) is not None
    world.now += 1.0
    await keyring.make(VIEW, "", None)
    for ring in (keyring, world.open()):
        assert ring.who_sent(text.encode()) is None
        assert ring.who_sent(lasting.encode()) is not None


@in_loop
async def test_a_name_means_the_live_key_that_has_it_else_the_last(world):
    keyring = world.open()
    first, _ = await keyring.make(VIEW, "mine", None)
    await keyring.revoke("mine")
    world.now += 1.0
    second, _ = await keyring.make(VIEW, "mine", None)
    assert keyring.named("mine").id == second.id
    await keyring.revoke("mine")
    assert keyring.named("mine").id == second.id
    assert keyring.named(first.id).id == first.id
    assert await keyring.revoke("nobody's") is None


@in_loop
async def test_there_are_only_so_many_live_keys(world):
    keyring = world.open()
    module_limit, module.MAX_KEYS = module.MAX_KEYS, 3
    try:
        for name in "ab":
            await keyring.make(VIEW, name, None)
        with pytest.raises(BadRequest, match="max_keys"):
            await keyring.make(VIEW, "c", None)
        await keyring.revoke("a")
        await keyring.make(VIEW, "c", None)
    finally:
        module.MAX_KEYS = module_limit


@in_loop
async def test_a_key_shows_no_secret(world):
    keyring = world.open()
    entry, text = await keyring.make(VIEW, "mine", None)
    assert text not in repr(entry) + repr(parse_key(text.encode()))
    assert str(entry.hash) not in repr(entry)
