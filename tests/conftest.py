"""What holds for every test: no server but its own, and no timing that fails it."""

import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from multihost.server.guard import GUARD_VARIABLE
from multihost.testing.guarding import StackGuard

# A shared machine is slow at times, which is no fault of the code (so no deadline per
# example), and what failed must be told so that it can be repeated elsewhere.
hypothesis.settings.register_profile("multihost", deadline=None, print_blob=True)
hypothesis.settings.load_profile("multihost")


# A shell's background jobs ignore Ctrl-C, and so would every program that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """What takes longest first, when several processes share the tests out by file."""
    if config.getoption("dist") != "loadfile":
        return None
    from longest_first import LongestFirst

    return LongestFirst(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Collect in the order of the scheduler, in each of its processes."""
    if hasattr(config, "workerinput"):
        from longest_first import place_of

        items.sort(key=lambda item: place_of(item.nodeid))


@pytest.fixture(scope="session", autouse=True)
def _no_server_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep tests away from a server, a key or a config file of whoever runs them."""
    nothing = tmp_path_factory.mktemp("no-server")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MULTIHOST_URL", raising=False)
        for name in ("KEY", "JOIN", "CA_FILE", "INSECURE"):
            patch.delenv(f"MULTIHOST_{name}", raising=False)
        patch.setenv("MULTIHOST_STATE", str(nothing / "state"))
        # A test that wants a seal says so: one made for a join string would reach all others.
        patch.setenv("MULTIHOST_SEAL", "off")
        patch.setenv("MULTIHOST_CACHE", str(nothing / "cache"))
        patch.setenv("MULTIHOST_CONFIG", str(nothing / "config.toml"))
        yield


@pytest.fixture(scope="session")
def guard_notes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where every server that a test starts notes what it was kept from."""
    notes = tmp_path_factory.mktemp("guard") / "notes"
    notes.touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(GUARD_VARIABLE, str(notes))
        StackGuard(notes).install()  # for servers within this process
        yield notes


@pytest.fixture(autouse=True)
def _servers_run_nothing_of_the_users(
    guard_notes: Path, request: pytest.FixtureRequest
) -> Iterator[None]:
    """Fail the test during which a server unpickled or imported something of a user's."""
    known = guard_notes.stat().st_size
    yield
    if guard_notes.stat().st_size > known and "bites" not in request.node.name:
        with guard_notes.open() as notes:
            notes.seek(known)
            news = notes.read()
        assert "refused" not in news, news
