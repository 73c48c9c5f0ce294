"""Which server is meant: by argument, by variable, by file, by a running one."""

import os

import pytest

from multihost.errors import ConfigError
from multihost.runtime.config import Target, environment_of, find_target
from multihost.runtime.join import Join
from multihost.runtime.note import ServerNote, write_server_note
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
    write_server_note(tmp_path / "state", note)
    for found in (find_target(), find_target(note.url), find_target(note.url, "its key")):
        assert (found.urls, found.key) == ((note.url,), b"its key")
        assert found.trust.fingerprint == PIN
    assert find_target("https://127.0.0.1:7078", "key").trust.fingerprint is None


@pytest.mark.parametrize("host", ["localhost", "127.3.2.1"])
def test_the_running_servers_key_is_found_for_whatever_name_this_machine_has(tmp_path, host):
    private(tmp_path / "state" / "key", "its key")
    note = ServerNote("https://127.0.0.1:7077", os.getpid(), PIN, "0.0.0.0")
    write_server_note(tmp_path / "state", note)
    assert find_target(f"https://{host}:7077") == Target((note.url,), b"its key", Trust(PIN))


@pytest.mark.parametrize(
    "url", ["https://192.0.2.1:7077", "http://localhost:7077", "https://localhost:7078"]
)
def test_another_servers_key_is_still_asked_for(tmp_path, url):
    private(tmp_path / "state" / "key", "its key")
    note = ServerNote("https://127.0.0.1:7077", os.getpid(), PIN, "0.0.0.0")
    write_server_note(tmp_path / "state", note)
    with pytest.raises(ConfigError, match="no key for"):
        find_target(url)


@pytest.mark.parametrize("wrong", ["myserver", "myserver:7077", "https://"])
def test_what_is_no_address_is_called_that_and_not_a_missing_key(monkeypatch, wrong):
    monkeypatch.setenv("MULTIHOST_URL", wrong)
    with pytest.raises(ConfigError, match="is not a server's address"):
        find_target()


def test_a_setting_that_does_not_exist_is_refused_with_the_nearest_that_does(tmp_path):
    (tmp_path / "config.toml").write_text('ulr = "https://server:7077"\n')
    with pytest.raises(ConfigError, match=r"'ulr'.*did you mean 'url'"):
        find_target()
    (tmp_path / "config.toml").write_text('colour = "blue"\n')
    with pytest.raises(ConfigError, match="There are url, join_file"):
        find_target()


@pytest.mark.parametrize(
    ("line", "wanted"), [('insecure = "yes"', "true or false"), ("url = 7077", "a text in quotes")]
)
def test_a_setting_of_the_wrong_kind_is_refused(tmp_path, line, wanted):
    (tmp_path / "config.toml").write_text(line + "\n")
    with pytest.raises(ConfigError, match=wanted):
        find_target()


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
