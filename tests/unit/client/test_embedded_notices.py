"""What a program says before it uses a server of its own."""

from multihost.client import embedded


def test_a_variable_that_looks_as_if_it_named_a_server_is_told(monkeypatch, caplog):
    monkeypatch.setenv("MULTIHOST_JION", "mhj1.x")
    monkeypatch.setenv("MULTIHOST_VERSION", "3")  # somebody's own
    embedded._tell_of_typos()
    (told,) = caplog.messages
    assert "MULTIHOST_JION is set and means nothing (did you mean MULTIHOST_JOIN?)" in told
