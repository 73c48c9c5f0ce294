"""The checks of ``multihost doctor``: each looks at one thing and says how to mend it.

A check never changes anything and never shows a secret. One that finds the
way barred (no server, no key) leaves out what lies behind it.
"""

import os
import platform
import shutil
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import multihost
from multihost.cli import render
from multihost.cli.connection import Connection
from multihost.cli.differences import packages_of, seals_of
from multihost.cli.finding import Finding, Level
from multihost.errors import AuthenticationError, MultihostError
from multihost.runtime import config
from multihost.runtime.address import is_join, parse_url
from multihost.runtime.config import Target
from multihost.runtime.secret import KEY_VARIABLE, read_key
from multihost.runtime.variables import documented, unknown

PACKAGES = (
    "apsw",
    "cloudpickle",
    "cryptography",
    "httptools",
    "msgspec",
    "psutil",
    "starlette",
    "uvicorn",
)
SAFE_SQLITE = (3, 51, 3)
"""The first without the bug that could corrupt a WAL file that was being reset."""
LITTLE_ROOM_BYTES = 2 << 30
NO_ROOM_BYTES = 128 << 20
SOON_S = 7 * 86400
"""A key that expires within this time is worth a warning."""
FEW_FILES = 1024
"""Descriptors; each connection takes one."""


def examine(url: str | None, key_file: Path | None) -> list[Finding]:
    """All findings, those about this machine first."""
    findings = [*_python(), *_packages(), *_sqlite(), *_files_limit(), *_disk(), *_state_files()]
    findings += [*_config_file(), *_variables()]
    target, located = _locate(url, key_file)
    findings += located
    if target is not None:
        findings += _server(target)
    return findings


# --- this machine ---------------------------------------------------------------------------


def _python() -> Iterator[Finding]:
    kind, version = platform.python_implementation(), platform.python_version()
    yield Finding(Level.OK, "python", f"{kind} {version} at {sys.executable}")


def _variables() -> Iterator[Finding]:
    for name, meant in unknown().items():
        remedy = f"did you mean {meant}?" if meant else f"there are {', '.join(documented())}"
        yield Finding(Level.WARN, "variable", f"{name} is set, and means nothing", remedy)


def _packages() -> Iterator[Finding]:
    versions, missing = [f"multihost {multihost.__version__}"], []
    fast = () if sys.platform == "win32" else ("uvloop",)
    for name in (*PACKAGES, *fast):
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        remedy = f"run: {sys.executable} -m pip install --upgrade multihost"
        yield Finding(Level.FAIL, "packages", f"missing: {', '.join(missing)}", remedy)
    yield Finding(Level.OK, "packages", ", ".join(versions))
    loop = "asyncio's own" if missing or not fast else "uvloop"
    yield Finding(Level.OK, "event loop", loop)


def _sqlite() -> Iterator[Finding]:
    try:
        import apsw
    except ImportError:
        return  # told among the packages
    version: str = apsw.sqlite_lib_version()
    if tuple(int(part) for part in version.split(".")) < SAFE_SQLITE:
        remedy = f"run: {sys.executable} -m pip install --upgrade apsw"
        text = f"{version}; before 3.51.3 it may damage a store that is being written"
        yield Finding(Level.WARN, "sqlite", text, remedy)
    else:
        yield Finding(Level.OK, "sqlite", version)


def _files_limit() -> Iterator[Finding]:
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        yield Finding(Level.OK, "open files", "no limit")
        return
    text = f"{render.count(soft)} a process; a server needs one for each connection"
    if soft < FEW_FILES:
        best = "unlimited" if hard == resource.RLIM_INFINITY else str(hard)
        remedy = f"run 'ulimit -n {best}' in the shell that starts the server"
        yield Finding(Level.WARN, "open files", text, remedy)
    else:
        yield Finding(Level.OK, "open files", text)


def _disk() -> Iterator[Finding]:
    directory = config.state_dir()
    there = directory
    while not there.exists() and there != there.parent:
        there = there.parent
    if not os.access(there, os.W_OK):
        remedy = f"choose another directory with {config.STATE_VARIABLE} or --state"
        yield Finding(Level.FAIL, "state", f"{there} can't be written", remedy)
    free = shutil.disk_usage(there).free
    text = f"{directory}, {render.size(free)} free"
    remedy = "make room: a server refuses submits when the disk is full"
    if free < NO_ROOM_BYTES:
        yield Finding(Level.FAIL, "state", text, remedy)
    elif free < LITTLE_ROOM_BYTES:
        yield Finding(Level.WARN, "state", text, remedy)
    else:
        yield Finding(Level.OK, "state", text)


def _state_files() -> Iterator[Finding]:
    key = config.state_dir() / config.KEY_FILE
    if key.exists():
        try:
            read_key(key)
        except MultihostError as error:
            yield Finding(Level.FAIL, "key file", str(error))
        else:
            yield Finding(Level.OK, "key file", f"{key}, readable by you alone")
    yield from _certificate()


def _certificate() -> Iterator[Finding]:
    """The one that a server here made for itself."""
    from multihost.server import certificate

    path = config.state_dir() / certificate.CERTIFICATE_FILE
    if not path.exists():
        return
    try:
        certificate.server_context(path)
        text = f"{path}, SHA-256 {certificate.read_fingerprint(path)}"
    except MultihostError as error:
        yield Finding(Level.FAIL, "TLS file", str(error))
    else:
        yield Finding(Level.OK, "TLS file", text)


# --- which server ----------------------------------------------------------------------------


def _config_file() -> Iterator[Finding]:
    path = config.config_file()
    if path.is_file():
        yield Finding(Level.OK, "config", str(path))
    else:
        yield Finding(Level.OK, "config", f"no file {path} (it is not needed)")


def _locate(url: str | None, key_file: Path | None) -> tuple[Target | None, list[Finding]]:
    """The server that would be used, and how it was found."""
    try:
        key = read_key(key_file) if key_file is not None else None
        target = config.find_target(url, key)
    except MultihostError as error:
        return None, [Finding(Level.FAIL, "server", str(error))]
    dead = config.dead_server() if target is None else None
    if dead is not None:
        text = "yours on this machine ({}, pid {}) has died; programs use one of their own".format(
            *dead
        )
        remedy = "'multihost server' starts it again, with all that it kept"
        return None, [Finding(Level.WARN, "server", text, remedy)]
    if target is None:
        text = "none is known here; programs start an embedded one of their own"
        remedy = "'multihost server' starts one that all your programs and machines share"
        return None, [Finding(Level.OK, "server", text, remedy)]
    given = _given(url)
    source = "running on this machine" if given is None else given.source
    where = f"{', '.join(target.urls)}, {source}; {_key_source(given, key_file)}"
    if target.socket is not None:
        where += f"; by its socket {target.socket}"
    return target, [Finding(Level.OK, "address", where)]


class _Given(NamedTuple):
    """What names the server; a join string names its key, too."""

    source: str
    is_join: bool


def _given(url: str | None) -> _Given | None:
    if url is not None:
        return _Given("from a join string" if is_join(url) else "from --server", is_join(url))
    for variable in (config.JOIN_VARIABLE, config.URL_VARIABLE):
        value = os.environ.get(variable)
        if value:
            return _Given(f"from {variable}", is_join(value))
    path = config.config_file()
    fields = tomllib.loads(path.read_text()) if path.is_file() else {}
    if "join_file" in fields:
        return _Given(f"from {fields['join_file']} ({path})", is_join=True)
    if fields.get("url"):
        return _Given(f"from {path}", is_join(fields["url"]))
    return None


def _key_source(given: _Given | None, key_file: Path | None) -> str:
    if key_file is not None:
        return f"key from {key_file}"
    if given is not None and given.is_join:
        return "key from there, too"
    if os.environ.get(KEY_VARIABLE):
        return f"key from {KEY_VARIABLE}"
    if given is not None and given.source == f"from {config.config_file()}":
        return "key from the config file's key_file"
    return f"key from {config.state_dir() / config.KEY_FILE}"


# --- the server -------------------------------------------------------------------------------


def _server(target: Target) -> Iterator[Finding]:
    connection = Connection(target)
    try:
        version = connection.get("/healthz")["version"]
        yield _version(connection.url, version)
        yield _tls(connection)
        key = connection.get("/api/keys/own")
        yield _key(key)
        if key["role"] == "work":
            return  # it sees no listings, and needs none
        workers = connection.get("/api/workers")
        queues = connection.get("/api/queues")
        installed = connection.get("/api/workers/installed")
    except AuthenticationError as error:
        yield Finding(Level.FAIL, "key", str(error))
        return
    except MultihostError as error:
        yield Finding(Level.FAIL, "server", str(error))
        return
    finally:
        connection.close()
    yield from _workers([row for row in workers if row["connected"]])
    for row in installed:
        yield packages_of(row)
    yield from seals_of(target, installed)
    yield from _queues(queues)


def _key(row: dict[str, Any]) -> Finding:
    text = f"the server takes it: {row['id']} ({row['name']}), role {row['role']}"
    left_s = row["expires_in_s"]
    if left_s is None:
        return Finding(Level.OK, "key", text)
    text += f", expires in {render.duration(left_s)}"
    if left_s > SOON_S:
        return Finding(Level.OK, "key", text)
    remedy = f"ask for another: 'multihost key new --role {row['role']}' on the server's machine"
    return Finding(Level.WARN, "key", text, remedy)


def _version(url: str, version: str) -> Finding:
    if version == multihost.__version__:
        return Finding(Level.OK, "server", f"{url} answers, multihost {version}")
    text = f"{url} answers, multihost {version}; here is {multihost.__version__}"
    return Finding(Level.WARN, "server", text, "install the same version on both ends")


def _tls(connection: Connection) -> Finding:
    """How what is said to the server is protected."""
    if connection.tls is not None:
        version, fingerprint = connection.tls
        trust = connection.target.trust
        why = "as the join string says"
        if trust.fingerprint is None:
            why = f"vouched for by {trust.ca_file or 'an authority that this system knows'}"
        return Finding(Level.OK, "TLS", f"{version}, certificate SHA-256 {fingerprint}, {why}")
    if not parse_url(connection.url).is_plain_and_far:
        return Finding(Level.OK, "TLS", "off: nothing leaves this machine")
    text = "off: whoever is on the network can read all, the key included"
    remedy = "start the server without --insecure, and hand out new join strings"
    return Finding(Level.WARN, "TLS", text, remedy)


def _workers(rows: list[dict[str, Any]]) -> Iterator[Finding]:
    if not rows:
        remedy = "start one with 'multihost worker', here or on another machine"
        yield Finding(Level.WARN, "workers", "none is connected: tasks wait", remedy)
        return
    mine = f"{sys.version_info.major}.{sys.version_info.minor}"
    slots = sum(row["slots"] for row in rows)
    pythons = sorted({row["python"] for row in rows})
    text = (
        f"{render.many(len(rows), 'worker')}, {render.many(slots, 'slot')}, "
        f"Python {', '.join(pythons)}"
    )
    if mine in pythons:
        yield Finding(Level.OK, "workers", text)
    else:
        text += f"; here is {mine}: functions of your main program can't run there"
        yield Finding(Level.WARN, "workers", text, f"start a worker with Python {mine}")


def _queues(rows: list[dict[str, Any]]) -> Iterator[Finding]:
    for row in rows:
        if row["is_paused"]:
            name = row["queue"]
            text = f"queue {name} is paused, {render.many(row['queued'], 'task')} waiting"
            yield Finding(Level.WARN, "queues", text, f"'multihost queues resume {name}'")
