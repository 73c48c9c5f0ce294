"""Which server is meant: by argument, by variable, by file, by a running one."""

import os

import pytest

from multihost.errors import ConfigError
from multihost.runtime import config
from multihost.runtime.config import ServerNote, Target, environment_of, find_target
from multihost.runtime.join import Join
from multihost.runtime.trust import Trust

PIN = "ab" * 32
JOIN = Join(("https://10.0.0.5:7077", "https://server:7077"), PIN, "joined", b"s" * 32)
TARGET = Target(JOIN.urls, b"joined", Trust(PIN), JOIN.seal)


@pytest.fixture(autouse=True)
def _own_files(tmp_path, monkeypatch):
    monkeypatch.setenv("MULTIHOST_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("MULTIHOST_CONFIG", str(tmp_path / "config.toml"))
    monkeypatch.delenv("MULTIHOST_SEAL", raising=False)


def private(path, text):
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_a_join_string_may_stand_where_an_address_may():
    assert find_target(JOIN.text()) == TARGET


@pytest.mark.parametrize("name", ["MULTIHOST_JOIN", "MULTIHOST_URL"])
def test_a_join_string_in_the_environment_brings_its_own_key(monkeypatch, name):
    monkeypatch.setenv(name, JOIN.text())
    monkeypatch.setenv("MULTIHOST_KEY", "of another server")
    assert find_target() == TARGET
    assert find_target(authkey="given").key == b"given"


def test_an_address_that_is_given_goes_before_a_join_string_in_the_environment(monkeypatch):
    monkeypatch.setenv("MULTIHOST_JOIN", JOIN.text())
    assert find_target("https://other:7077", "key").urls == ("https://other:7077",)


def test_the_config_file_takes_a_join_string_that_nobody_else_can_read(tmp_path):
    path = private(tmp_path / "config.toml", f'url = "{JOIN.text()}"\n')
    assert find_target() == TARGET
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        find_target()


def test_the_config_file_names_a_join_file(tmp_path):
    path = private(tmp_path / "join", JOIN.text())
    (tmp_path / "config.toml").write_text(f'join_file = "{path}"\n')
    assert find_target() == TARGET
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        find_target()


@pytest.mark.parametrize("url", ["http://10.0.0.5:7077", "https://a:1,http://10.0.0.5:7077"])
def test_plain_http_beyond_loopback_has_to_be_allowed(tmp_path, monkeypatch, url):
    with pytest.raises(ConfigError, match="MULTIHOST_INSECURE=1"):
        find_target(url, "key")
    monkeypatch.setenv("MULTIHOST_INSECURE", "1")
    assert find_target(url, "key").urls == tuple(url.split(","))
    monkeypatch.setenv("MULTIHOST_INSECURE", "0")
    (tmp_path / "config.toml").write_text(f'url = "{url}"\ninsecure = true\n')
    assert find_target(authkey="key").urls == tuple(url.split(","))


def test_who_made_a_join_string_without_tls_has_allowed_it():
    join = Join(("http://10.0.0.5:7077",), None, "key")
    assert find_target(join.text()).urls == join.urls


def test_authorities_are_named_by_variable_or_file(tmp_path, monkeypatch):
    (tmp_path / "config.toml").write_text('url = "https://server"\nca_file = "/etc/ours.pem"\n')
    assert find_target(authkey="key").trust == Trust(ca_file="/etc/ours.pem")
    monkeypatch.setenv("MULTIHOST_CA_FILE", "/etc/other.pem")
    assert find_target(authkey="key").trust == Trust(ca_file="/etc/other.pem")


def test_the_running_server_says_which_certificate_it_has(tmp_path):
    private(tmp_path / "state" / "key", "its key")
    note = ServerNote("https://127.0.0.1:7077", os.getpid(), PIN, "0.0.0.0")
    config.write_server_note(tmp_path / "state", note)
    for found in (find_target(), find_target(note.url), find_target(note.url, "its key")):
        assert (found.urls, found.key) == ((note.url,), b"its key")
        assert found.trust.fingerprint == PIN
    assert find_target("https://127.0.0.1:7078", "key").trust.fingerprint is None


@pytest.mark.parametrize(
    "target",
    [
        TARGET,
        Target(("http://127.0.0.1:7077",), b"key"),
        Target(("https://a:1", "https://b:1"), b"key", Trust(ca_file="/etc/ours.pem")),
        Target(("http://10.0.0.5:7077",), b"key", Trust(is_insecure=True)),
    ],
)
def test_a_child_finds_the_same_server(monkeypatch, target):
    monkeypatch.setenv("MULTIHOST_JOIN", Join(("https://x:1",), PIN, "key").text())
    for name, value in environment_of(target).items():
        monkeypatch.setenv(name, value)
    assert find_target() == target


def test_a_target_does_not_show_its_secrets():
    assert "joined" not in repr(TARGET)
