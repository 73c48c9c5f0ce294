"""Addresses of servers, as people write them."""

import re

import pytest

from multihost.errors import ConfigError
from multihost.runtime.address import is_loopback, parse_url, url_of
from multihost.runtime.config import find_target
from multihost.runtime.join import Join


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://host:7000", (False, "host", 7000)),
        ("https://host:7000", (True, "host", 7000)),
        ("http://[::1]:7000/", (False, "::1", 7000)),
        ("http://host", (False, "host", 7077)),
    ],
)
def test_addresses_are_read(url, address):
    assert parse_url(url) == address


@pytest.mark.parametrize("url", ["host:7000", "ftp://host:1", "http://:1", "http://h:port", ""])
def test_a_wrong_address_is_named(url):
    with pytest.raises(ConfigError, match="is not a server's address"):
        parse_url(url)


@pytest.mark.parametrize("url", ["http://localhost:7077", "https://server:7077", "https://server"])
def test_an_address_without_its_scheme_is_answered_with_the_whole(url):
    with pytest.raises(ConfigError, match=re.escape(f"did you mean {url}?")):
        parse_url(url.partition("://")[2])


def test_half_a_join_string_in_the_place_of_an_address_is_not_repeated(monkeypatch):
    text = Join(("https://10.0.0.5:7077",), "ab" * 32, "the-key").text().removeprefix("mhj1.")
    for wrong in (text, "x" + text):
        for read in (parse_url, find_target, lambda text: find_target(text, "key")):
            with pytest.raises(ConfigError) as caught:
                read(wrong)
            assert text[40:60] not in str(caught.value)


@pytest.mark.parametrize("host", ["10.0.0.5", "fd00::5", "server.example.org"])
@pytest.mark.parametrize("is_tls", [False, True])
def test_a_written_address_is_read_back(host, is_tls):
    assert parse_url(url_of(host, 7077, is_tls=is_tls)) == (is_tls, host, 7077)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "::1", "localhost"])
def test_loopback_is_known(host):
    assert is_loopback(host)
    assert not parse_url(url_of(host, 1, is_tls=False)).is_plain_and_far


@pytest.mark.parametrize("host", ["10.0.0.5", "fd00::5", "localhost.example.org", "0.0.0.0"])
def test_only_tls_may_cross_a_network(host):
    assert parse_url(url_of(host, 1, is_tls=False)).is_plain_and_far
    assert not parse_url(url_of(host, 1, is_tls=True)).is_plain_and_far
