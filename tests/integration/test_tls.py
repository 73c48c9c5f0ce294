"""TLS between a server, its workers and its clients, on one machine."""

import asyncio
import ssl
from pathlib import Path

import pytest
from cli_runner import Shell
from cli_tasks import double
from imposter import Imposter, fingerprint_at

import multihost
from multihost.cli.exits import Exit
from multihost.errors import AuthenticationError, ServerNotFound, UntrustedServer
from multihost.runtime.join import Join
from multihost.testing import Cluster

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


# what is not meant for each other ----------------------------------------------------------------


def test_tls_and_plain_http_that_meet_say_so(cluster):
    plain = cluster.url.replace("https", "http")
    with pytest.raises(ServerNotFound, match="it may speak TLS"):
        multihost.connect(plain, cluster.key)
    code, _, errors = Shell(MULTIHOST_URL=plain, MULTIHOST_KEY="key").run("jobs")
    assert (code, "it may speak TLS" in errors) == (Exit.UNREACHABLE, True)
    with Cluster(workers=0) as other, pytest.raises(ServerNotFound, match="does not speak TLS"):
        multihost.connect(other.url.replace("http", "https"), "key")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1])
def test_old_versions_of_tls_are_refused(cluster, version):
    import socket
    import warnings

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
