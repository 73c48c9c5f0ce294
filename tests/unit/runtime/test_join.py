"""Join strings: what they hold, and what is refused as none."""

import base64

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from multihost.errors import ConfigError
from multihost.runtime.join import Join, hide, parse_join, read_join

PIN = "ab" * 32
JOIN = Join(("https://10.0.0.5:7077", "https://server:7077"), PIN, "the-key", b"s" * 32)
PLAIN = Join(("http://127.0.0.1:7077",), None, "the-key")


def packed(*fields):
    data = base64.urlsafe_b64encode(msgspec.msgpack.encode(fields))
    return "mhj1." + data.rstrip(b"=").decode()


@pytest.mark.parametrize("join", [JOIN, PLAIN], ids=["pinned", "plain"])
def test_a_join_string_says_what_was_put_in(join):
    text = join.text()
    assert text.startswith("mhj1.")
    assert parse_join(f"  {text}\n") == join


def test_its_secrets_are_not_shown():
    assert "the-key" not in repr(JOIN)
    text = f"multihost: no such option: {JOIN.text()} (try --help)"
    assert hide(text) == "multihost: no such option: mhj1.(hidden) (try --help)"


@given(st.text() | st.binary().map(lambda data: "mhj1." + base64.urlsafe_b64encode(data).decode()))
@example(JOIN.text()[:-5])
@example("mhj1.")
@example("mhj2." + JOIN.text().removeprefix("mhj1."))
def test_what_is_none_is_refused_and_not_repeated(text):
    with pytest.raises(ConfigError) as caught:
        parse_join(text)
    body = text.strip().removeprefix("mhj1.")
    assert len(body) < 10 or body not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        (([], None, "key"), "names no server"),
        ((["https://h:1"], None, ""), "no key"),
        ((["https://h:1"] * 65, None, "key"), "names no server"),
        ((["h:1"], None, "key"), "is not a server's address"),
        ((["https://h:1"], b"short", "key"), "another length"),
        ((["https://h:1"], None, "key", b"short"), "another length"),
        ((["https://h:1", "http://h:1"], b"p" * 32, "key"), "an address without TLS"),
    ],
)
def test_one_that_makes_no_sense_is_refused(fields, why):
    with pytest.raises(ConfigError, match=why):
        parse_join(packed(*fields))


def test_fields_of_a_later_version_are_left_alone():
    text = packed(["https://h:1"], b"p" * 32, "key", b"s" * 32, "more")
    assert parse_join(text).key == "key"


def test_a_join_file_is_read_only_if_it_is_its_owners_alone(tmp_path):
    path = tmp_path / "join"
    path.write_text(JOIN.text() + "\n")
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_join(path)
    path.chmod(0o600)
    assert parse_join(read_join(path)) == JOIN
    with pytest.raises(ConfigError, match="can't read"):
        read_join(tmp_path / "none")
