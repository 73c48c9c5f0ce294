"""TLS between a server, its workers and its clients, on one machine."""

import asyncio
import contextlib
import datetime as dt
import ipaddress
import json
import socket
import ssl
import warnings
from pathlib import Path

import pytest
from cli_runner import Shell
from cli_tasks import double
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from imposter import Imposter, fingerprint_at

import multihost
from multihost.cli.exits import Exit
from multihost.errors import AuthenticationError, ServerNotFound, UntrustedServer
from multihost.runtime.join import Join, parse_join
from multihost.testing import Cluster, wait_until

HERE = str(Path(__file__).parent)
SECRET = "a-key-that-nobody-else-may-hear"
DEAD = "https://127.0.0.1:9"


@pytest.fixture(scope="module")
def cluster():
    with Cluster(workers=1, python_path=[HERE], is_tls=True) as cluster:
        yield cluster


@pytest.fixture
def imposter(tmp_path):
    with Imposter(tmp_path / "imposter") as imposter:
        yield imposter


def length_there(name):
    """In a task: what a queue of the server has, which its environment names."""
    with multihost.connect() as client:
        return client.queue(name).qsize()


def test_everything_runs_over_tls(cluster):
    with multihost.Pool(url=cluster.join.text()) as pool:
        assert pool.map(double, range(50)) == [2 * n for n in range(50)]
        assert pool.apply(double, (bytes(3 << 20),)) == bytes(6 << 20)
    with multihost.connect(cluster.join.text()) as client:
        client.queue("over-tls").put(1)
        assert client.submit(length_there, "over-tls").result(30) == 1
        assert client.slots() == 2


def test_the_asyncio_client_takes_a_join_string(cluster):
    async def ask():
        client = await multihost.AsyncClient.connect(cluster.join.text())
        async with client:
            return await client.submit(double, 21)

    assert asyncio.run(ask()) == 42


def test_listings_find_a_server_by_the_join_string_alone(cluster, tmp_path):
    path = tmp_path / "join"
    path.write_text(cluster.join.text())
    path.chmod(0o600)
    assert len(Shell().json("workers", "--join-file", str(path))) == 1
    assert len(Shell(MULTIHOST_JOIN=cluster.join.text()).json("workers")) == 1
    path.chmod(0o644)
    code, _, errors = Shell().run("workers", "--join-file", str(path))
    assert (code, "chmod 600" in errors) == (Exit.USAGE, True)


def test_a_join_string_among_the_arguments_is_warned_of_and_never_repeated(cluster):
    text = cluster.join.text()
    code, _, errors = Shell().run("workers", "--join", text)
    assert code is Exit.OK
    assert "can be seen by every user of this machine" in errors
    for wrong in (("workers", text), ("jobs", "--join", text[:-9]), ("job", "--server", text)):
        code, output, errors = Shell().run(*wrong)
        assert code is Exit.USAGE
        assert text[:60] not in output + errors


# who is not the server hears nothing ---------------------------------------------------------


def pinned(cluster, *urls):
    return Join(urls, cluster.join.fingerprint, SECRET).text()


def test_a_wrong_fingerprint_names_both_and_hears_nothing_from_a_client(cluster, imposter):
    with pytest.raises(UntrustedServer, match="take a new join string") as caught:
        multihost.connect(pinned(cluster, imposter.url))
    assert caught.value.expected == cluster.join.fingerprint
    assert caught.value.found == fingerprint_at(imposter.url)
    assert caught.value.expected in str(caught.value)
    assert caught.value.found in str(caught.value)
    assert imposter.calls
    assert imposter.heard == b""


@pytest.mark.parametrize("command", ["worker", "workers", "jobs"])
def test_a_wrong_fingerprint_hears_nothing_from_a_command(cluster, imposter, command):
    shell = Shell(MULTIHOST_JOIN=pinned(cluster, imposter.url))
    code, output, errors = shell.run(command)
    assert code is Exit.KEY
    assert cluster.join.fingerprint in errors
    assert SECRET not in output + errors
    assert imposter.calls
    assert imposter.heard == b""


def test_without_a_fingerprint_an_authority_has_to_vouch(cluster, imposter, monkeypatch):
    with pytest.raises(UntrustedServer, match="MULTIHOST_CA_FILE"):
        multihost.connect(imposter.url, SECRET)
    assert Shell(MULTIHOST_URL=imposter.url, MULTIHOST_KEY=SECRET).run("jobs")[0] is Exit.KEY
    assert imposter.heard == b""
    monkeypatch.setenv("MULTIHOST_CA_FILE", str(cluster.directory / "tls.pem"))
    with multihost.connect(cluster.url, cluster.key) as client:
        assert client.submit(double, 4).result(30) == 8
    elsewhere = cluster.url.replace("127.0.0.1", "127.0.0.2")
    with pytest.raises((UntrustedServer, ServerNotFound)):
        multihost.connect(elsewhere, cluster.key)


def test_the_right_certificate_and_a_wrong_key_are_refused_as_a_wrong_key(cluster):
    wrong = Join(cluster.join.urls, cluster.join.fingerprint, SECRET).text()
    with pytest.raises(AuthenticationError, match="has another key") as caught:
        multihost.connect(wrong)
    assert not isinstance(caught.value, UntrustedServer)
    code, _, errors = Shell(MULTIHOST_JOIN=wrong).run("jobs")
    assert (code, "has another key" in errors) == (Exit.KEY, True)
    assert SECRET not in errors


# several addresses -----------------------------------------------------------------------------


def test_addresses_that_are_dead_or_somebody_elses_are_passed_over(cluster, imposter):
    good = Join((DEAD, imposter.url, cluster.url), cluster.join.fingerprint, cluster.join.key)
    with multihost.connect(good.text()) as client:
        assert client.url == cluster.url
        assert client.slots() == 2
    assert len(Shell(MULTIHOST_JOIN=good.text()).json("workers")) == 1
    assert imposter.heard == b""


def test_a_server_that_moved_to_another_address_of_the_list_is_found_again(tmp_path):
    spare = Cluster(workers=0)
    with Cluster(workers=0, is_tls=True) as moving:
        urls = (moving.url, spare.url.replace("http:", "https:"))
        join = Join(urls, moving.join.fingerprint, moving.join.key).text()
        shell = Shell(MULTIHOST_JOIN=join, PYTHONPATH=HERE)
        with multihost.connect(join) as client, shell.start("worker", "--slots", "1") as worker:
            assert client.submit(double, 1).result(30) == 2
            client.queue("lasting").put("kept")
            moving.kill_server()
            moving.port, moving.url = spare.port, urls[1]
            moving.start_server()
            assert client.queue("lasting").get(timeout=30) == "kept"
            assert client.submit(double, 2).result(30) == 4
            assert client.url == urls[1]
            worker.terminate()
            _, told = worker.communicate(timeout=30)
        assert worker.returncode == Exit.OK
        assert f"is connected to {urls[1]}" in told
        assert moving.key.decode() not in told + moving.log
    spare.stop()


def test_who_takes_the_place_of_a_server_that_is_away_is_outlasted_and_hears_nothing(
    tmp_path, caplog
):
    with (
        Cluster(workers=0, is_tls=True) as cluster,
        multihost.connect(cluster.join.text()) as client,
    ):
        client.queue("lasting").put("kept")
        cluster.kill_server()
        with Imposter(tmp_path / "imposter", cluster.port) as imposter:
            wait_until(lambda: imposter.calls >= 2, "the client has tried it more than once")
        cluster.start_server()
        assert client.queue("lasting").get(timeout=30) == "kept"
    assert imposter.heard == b""
    warnings = [each.getMessage() for each in caplog.records if each.name == "multihost"]
    assert sum("has another certificate than expected" in each for each in warnings) == 1


# what is not meant for each other ----------------------------------------------------------------


def test_tls_and_plain_http_that_meet_say_so(cluster):
    plain = cluster.url.replace("https", "http")
    with pytest.raises(ServerNotFound, match="it may speak TLS"):
        multihost.connect(plain, cluster.key)
    code, _, errors = Shell(MULTIHOST_URL=plain, MULTIHOST_KEY="key").run("jobs")
    assert (code, "it may speak TLS" in errors) == (Exit.UNREACHABLE, True)
    with Cluster(workers=0) as other, pytest.raises(ServerNotFound, match="does not speak TLS"):
        multihost.connect(other.url.replace("http", "https"), "key")


def test_strangers_that_never_finish_a_handshake_keep_nobody_out(cluster):
    """More of them than one address may have: silent, with nonsense, with half a hello."""
    hello = bytes.fromhex("1603010200010001fc0303")
    with contextlib.ExitStack() as stack:
        for number in range(600):
            end = stack.enter_context(socket.create_connection(("127.0.0.1", cluster.port)))
            with contextlib.suppress(OSError):  # refused already
                end.sendall((b"", b"\x00" * 64, b"GET / HTTP/1.1\r\n\r\n", hello)[number % 4])
        with multihost.connect(cluster.join.text()) as client:
            assert client.submit(double, 3).result(30) == 6
    assert "Traceback" not in cluster.log
    assert "SSL" not in cluster.log


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1])
def test_old_versions_of_tls_are_refused(cluster, version):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = version
    with socket.create_connection(("127.0.0.1", cluster.port)) as raw, pytest.raises(OSError):
        context.wrap_socket(raw)


def test_the_certificate_stays_over_a_restart_and_its_key_is_the_owners_alone(tmp_path):
    with Cluster(workers=0, is_tls=True) as cluster:
        before, path = cluster.join, cluster.directory / "tls.pem"
        cluster.kill_server()
        cluster.start_server()
        assert cluster.join == before
        assert path.stat().st_mode & 0o777 == 0o600
        cluster.kill_server()
        path.chmod(0o644)
        shell = Shell(MULTIHOST_STATE=str(cluster.directory))
        code, _, errors = shell.run("server", "--port", "0", "--tls")
        assert (code, f"chmod 600 {path}" in errors) == (Exit.USAGE, True)


# a certificate of one's own -----------------------------------------------------------------------


def issue(directory, name):
    """An authority's certificate, and a certificate for ``name`` with its key, that it signed."""
    issuer_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    today = dt.datetime.now(dt.UTC)

    def certificate(subject, public_key, extension):
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, subject)]))
            .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "authority")]))
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(today - dt.timedelta(days=1))
            .not_valid_after(today + dt.timedelta(days=1))
            .add_extension(extension, critical=True)
            .sign(issuer_key, hashes.SHA256())
        )

    pem = serialization.Encoding.PEM
    address = x509.IPAddress(ipaddress.ip_address(name))
    authority = certificate("authority", issuer_key.public_key(), x509.BasicConstraints(True, 0))
    leaf = certificate("server", key.public_key(), x509.SubjectAlternativeName([address]))
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    paths = [directory / each for each in ("authority.pem", "server.pem", "server.key")]
    data = (authority.public_bytes(pem), leaf.public_bytes(pem), secret)
    for path, content in zip(paths, data, strict=True):
        path.touch(0o600)
        path.write_bytes(content)
    return paths


def test_an_authority_vouches_for_a_certificate_of_ones_own_unless_it_is_pinned(tmp_path):
    authority, certificate, key = issue(tmp_path, "127.0.0.1")
    shell = Shell(MULTIHOST_STATE=str(tmp_path / "state"))
    options = ("--tls-cert", str(certificate), "--tls-key", str(key), "--json")
    with shell.start("server", "--port", "0", *options) as server:
        note = json.loads(server.stdout.readline())
        made = parse_join(shell.json("key", "join")["join"])
        pinned = parse_join(shell.json("key", "join", "--pin")["join"])
        assert made == Join((note["url"],), None, pinned.key)
        assert pinned.fingerprint == note["fingerprint"]
        code, _, errors = Shell(MULTIHOST_JOIN=made.text()).run("jobs")
        assert (code, "unable to get local issuer certificate" in errors) == (Exit.KEY, True)
        vouched = Shell(MULTIHOST_JOIN=made.text(), MULTIHOST_CA_FILE=str(authority))
        assert vouched.json("jobs") == []
        assert Shell(MULTIHOST_JOIN=pinned.text()).json("jobs") == []
        assert shell.json("jobs") == []  # the same user's, on this machine
        wrong_name = made.urls[0].replace("127.0.0.1", "localhost")
        vouched.environment["MULTIHOST_JOIN"] = Join((wrong_name,), None, made.key).text()
        code, _, errors = vouched.run("jobs")
        assert (code, "Hostname mismatch" in errors) == (Exit.KEY, True)
        server.terminate()


def test_files_that_are_no_certificate_and_key_are_named(tmp_path):
    _, certificate, key = issue(tmp_path, "127.0.0.1")
    _, other, _ = issue_in(tmp_path / "other")
    shell = Shell(MULTIHOST_STATE=str(tmp_path / "state"))

    def refused(*options):
        code, _, errors = shell.run("server", "--port", "0", *map(str, options))
        assert code is Exit.USAGE
        return errors

    assert "no certificate (PEM, with its chain)" in refused("--tls-cert", other, "--tls-key", key)
    assert "can't read" in refused("--tls-cert", tmp_path / "none", "--tls-key", key)
    assert "say --tls-cert, too" in refused("--tls-key", key)
    key.chmod(0o644)
    assert f"chmod 600 {key}" in refused("--tls-cert", certificate, "--tls-key", key)


def issue_in(directory):
    directory.mkdir()
    return issue(directory, "127.0.0.1")


# making join strings ------------------------------------------------------------------------------


def test_a_join_string_has_the_addresses_that_one_names(tmp_path):
    shell = Shell(MULTIHOST_STATE=str(tmp_path))
    address = ("--address", "jobs.example.org", "--address", "[fd00::5]:17077")
    with shell.start("server", "--host", "0.0.0.0", "--port", "0", *address, "--json") as server:
        port = json.loads(server.stdout.readline())["url"].rpartition(":")[2]
        told = shell.json("key", "join")
        assert told["urls"] == [f"https://jobs.example.org:{port}", "https://[fd00::5]:17077"]
        assert shell.json("key", "join", "--address", "other:1")["urls"] == ["https://other:1"]
        assert shell.json("jobs") == []  # by loopback, wherever else it listens
        server.terminate()
    # A server that is not running is known by its certificate.
    later = shell.json("key", "join", "--address", "other:1")
    assert later["fingerprint"] == told["fingerprint"]
    code, _, errors = shell.run("key", "join")
    assert (code, "--address HOST:PORT" in errors) == (Exit.USAGE, True)


def test_a_join_file_is_written_for_its_owner_alone(cluster, tmp_path):
    path = tmp_path / "join"
    path.touch(0o644)
    state = ("--state", str(cluster.directory))
    code, output, errors = Shell().run("key", "join", *state, "--file", str(path))
    assert (code, output) == (Exit.OK, "")
    assert "the server listens on loopback" in errors
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(Shell().json("workers", "--join-file", str(path))) == 1
