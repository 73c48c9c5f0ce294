"""Which seal is used, and what is said of one that can't be."""

import os

import pytest

from multihost.errors import ConfigError
from multihost.runtime import config
from multihost.runtime.secret import seal_text


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("MULTIHOST_CONFIG", str(tmp_path / "config.toml"))
    monkeypatch.delenv("MULTIHOST_SEAL", raising=False)
    return tmp_path


def test_there_is_none_until_one_is_made():
    assert config.find_seal() is None
    made = config.seal_to_give()
    assert len(made) == 32
    assert config.find_seal() == config.seal_to_give() == made
    assert config.seal_file().stat().st_mode & 0o777 == 0o600


def test_the_variable_goes_before_the_join_string_and_that_before_the_file(monkeypatch):
    kept = config.seal_to_give()
    assert config.find_seal(b"j" * 32) == b"j" * 32
    monkeypatch.setenv("MULTIHOST_SEAL", seal_text(b"v" * 32))
    assert config.find_seal(b"j" * 32) == config.seal_to_give() == b"v" * 32
    monkeypatch.setenv("MULTIHOST_SEAL", "off")
    assert config.find_seal(b"j" * 32) is config.seal_to_give() is None
    monkeypatch.setenv("MULTIHOST_SEAL", "")
    assert config.find_seal() == kept


def test_a_seal_that_others_may_read_is_refused(home):
    config.seal_to_give()
    config.seal_file().chmod(0o644)
    with pytest.raises(ConfigError, match="others may read the seal file"):
        config.find_seal()


def test_a_damaged_seal_is_named_and_not_shown(monkeypatch):
    monkeypatch.setenv("MULTIHOST_SEAL", "c2VjcmV0")
    with pytest.raises(ConfigError, match="MULTIHOST_SEAL is damaged") as caught:
        config.find_seal()
    assert "c2VjcmV0" not in str(caught.value)


def test_a_child_process_gets_the_seal_of_its_worker_or_none_at_all(monkeypatch):
    config.seal_to_give()
    for seal in (b"w" * 32, None):
        target = config.Target(("http://127.0.0.1:1",), b"key", seal=seal)
        with monkeypatch.context() as patch:
            for name, value in config.environment_of(target).items():
                patch.setenv(name, value)
            found = config.find_target()
        assert found is not None
        assert found.seal == seal


def test_the_targets_text_does_not_show_it():
    target = config.Target(("http://127.0.0.1:1",), b"key", seal=b"w" * 32)
    assert "w" * 8 not in repr(target)
    assert os.environ.get("MULTIHOST_SEAL") is None
