"""``multihost doctor`` finds what is wrong, says how to mend it, and shows no secret."""

import json
import platform
import subprocess
import sys

import pytest
from cli_runner import Shell

from multihost.cli.exits import Exit
from multihost.runtime import packages
from multihost.runtime.secret import seal_text
from multihost.testing import Cluster


@pytest.fixture(scope="module")
def cluster():
    with Cluster(workers=1) as cluster:
        yield cluster


def findings(shell, *options):
    """Exit code, and the findings by what they are about."""
    code, output, _ = shell.run("doctor", "--json", *options)
    return code, {row["about"]: row for row in json.loads(output)}


def test_all_is_well_with_a_server_and_a_worker(cluster):
    code, found = findings(Shell(**cluster.environment))
    assert code is Exit.OK
    assert found["server"]["level"] == found["key"]["level"] == found["workers"]["level"] == "ok"
    assert "from MULTIHOST_URL; key from MULTIHOST_KEY" in found["address"]["text"]
    assert {"python", "packages", "sqlite", "event loop", "open files", "state"} <= found.keys()


def test_a_server_of_this_user_is_found(cluster):
    code, found = findings(Shell(MULTIHOST_STATE=str(cluster.directory)))
    assert code is Exit.OK
    assert f"{cluster.url}, running on this machine" in found["address"]["text"]
    assert "readable by you alone" in found["key file"]["text"]


def test_the_config_file_is_named_as_the_source(cluster, tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(f'url = "{cluster.url}"\nkey_file = "{cluster.directory / "key"}"\n')
    code, found = findings(Shell(MULTIHOST_CONFIG=str(path)))
    assert code is Exit.OK
    assert f"from {path}" in found["address"]["text"]
    assert "the config file's key_file" in found["address"]["text"]


def test_a_variable_that_nobody_reads_is_told_and_what_was_meant(tmp_path):
    shell = Shell(MULTIHOST_JION="mhj1.x", MULTIHOST_STATE=str(tmp_path))
    _, found = findings(shell)
    assert found["variable"]["text"] == "MULTIHOST_JION is set, and means nothing"
    assert found["variable"]["remedy"] == "did you mean MULTIHOST_JOIN?"
    code, _, errors = shell.run("jobs")
    assert code is Exit.UNREACHABLE
    assert "MULTIHOST_JION is set, and means nothing: did you mean MULTIHOST_JOIN?" in errors


def test_the_key_is_never_shown(cluster):
    _, output, errors = Shell(**cluster.environment).run("doctor")
    assert cluster.key.decode() not in output + errors


def test_tls_and_the_certificate_are_told_and_the_join_string_is_not():
    with Cluster(workers=0, is_tls=True) as cluster:
        pin, text = cluster.join.fingerprint, cluster.join.text()
        _, found = findings(Shell(MULTIHOST_JOIN=text))
        assert (
            found["TLS"]["text"] == f"TLSv1.3, certificate SHA-256 {pin}, as the join string says"
        )
        assert "from MULTIHOST_JOIN; key from there, too" in found["address"]["text"]
        _, found = findings(Shell(MULTIHOST_STATE=str(cluster.directory)))
        assert pin in found["TLS file"]["text"]
        _, output, errors = Shell().run("doctor", "--join", text)
        assert text[:60] not in output + errors
        assert cluster.key.decode() not in output + errors


def test_a_server_without_tls_is_told(cluster):
    _, found = findings(Shell(**cluster.environment))
    assert found["TLS"]["text"] == "off: nothing leaves this machine"


def test_no_server_is_no_fault():
    code, found = findings(Shell())
    assert code is Exit.OK
    assert "start an embedded one" in found["server"]["text"]


def test_a_server_that_died_is_told_with_how_to_start_it_again(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    note = {"url": "http://127.0.0.1:9", "pid": ended.pid}
    (tmp_path / "server.json").write_text(json.dumps(note))
    code, found = findings(Shell(MULTIHOST_STATE=str(tmp_path)))
    assert code is Exit.OK
    assert found["server"]["level"] == "warn"
    assert f"pid {ended.pid}) has died" in found["server"]["text"]
    assert "'multihost server' starts it again" in found["server"]["remedy"]


@pytest.mark.parametrize(
    ("variables", "about", "says"),
    [
        ({"MULTIHOST_URL": "http://127.0.0.1:9", "MULTIHOST_KEY": "x"}, "server", "no multihost"),
        ({"MULTIHOST_URL": "http://127.0.0.1:9"}, "server", "no key for"),
        ({"MULTIHOST_URL": "ftp://x", "MULTIHOST_KEY": "x"}, "server", "not a server's address"),
    ],
)
def test_what_bars_the_way_is_named(variables, about, says):
    code, found = findings(Shell(**variables))
    assert code is Exit.FAILED
    assert found[about]["level"] == "fail"
    assert says in found[about]["text"]


def test_another_key_fails(cluster):
    code, found = findings(Shell(MULTIHOST_URL=cluster.url, MULTIHOST_KEY="wrong"))
    assert (code, found["key"]["level"]) == (Exit.FAILED, "fail")


def test_a_key_file_that_others_can_read_fails(tmp_path):
    (tmp_path / "key").write_text("secret\n")
    (tmp_path / "key").chmod(0o640)
    code, found = findings(Shell(MULTIHOST_STATE=str(tmp_path)))
    assert (code, found["key file"]["level"]) == (Exit.FAILED, "fail")
    assert "chmod 600" in found["key file"]["text"]


def test_a_broken_config_file_fails(tmp_path):
    (tmp_path / "config.toml").write_text("url = ")
    code, found = findings(Shell(MULTIHOST_CONFIG=str(tmp_path / "config.toml")))
    assert code is Exit.FAILED
    assert "can't read the config file" in found["server"]["text"]


def test_no_worker_is_warned_of():
    with Cluster(workers=0) as cluster:
        code, found = findings(Shell(**cluster.environment))
    assert (code, found["workers"]["level"]) == (Exit.OK, "warn")
    assert "multihost worker" in found["workers"]["remedy"]


def test_packages_of_a_worker_in_other_versions_are_warned_of(cluster, tmp_path):
    for name in ("msgspec-0.0.1.dist-info", "nonesuch-1.0.dist-info"):
        (tmp_path / name).mkdir()
    code, found = findings(Shell(**cluster.environment, PYTHONPATH=str(tmp_path)))
    (row,) = cluster.get("/api/workers")
    finding = found[f"worker {row['worker']}"]
    assert (code, finding["level"]) == (Exit.OK, "warn")
    real = packages.installed_packages()["msgspec"]
    assert f"other versions: msgspec {real} (here 0.0.1)" in finding["text"]
    assert "not there: nonesuch" in finding["text"]
    assert platform.python_version() in finding["text"]
    assert "ship=" in finding["remedy"]


def test_a_worker_like_this_machine_is_well(cluster):
    _, found = findings(Shell(**cluster.environment))
    (row,) = cluster.get("/api/workers")
    assert found[f"worker {row['worker']}"]["level"] == "ok"
    assert found["seal"]["text"].startswith("none: ")


def test_a_seal_that_a_worker_lacks_is_told_and_not_shown(cluster):
    seal = seal_text(b"s" * 32)
    _, found = findings(Shell(**cluster.environment, MULTIHOST_SEAL=seal))
    (row,) = cluster.get("/api/workers")
    assert found["seal"]["level"] == "warn"
    assert f"none, at {row['worker']}" in found["seal"]["text"]
    assert seal not in str(found)
