"""``multihost server``: starts one, says where it is and how to start workers, stops it well.

What it prints is for a person to copy; the key is shown only when asked for.
"""

import errno
import json
import os
import shlex
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from multihost.cli import render
from multihost.cli.exits import CommandError, Exit
from multihost.cli.sizes import SIZE
from multihost.runtime import config
from multihost.runtime.address import DEFAULT_PORT, bracket, is_loopback, parse_url
from multihost.runtime.note import read_server_note

if TYPE_CHECKING:
    from multihost.server.app import Server, ServerOptions

DURABILITIES = {
    "power": "acknowledged work survives kill -9 and a power cut",
    "process": "acknowledged work survives kill -9, not a power cut",
}
GIVEN_UP = "whoever is on the network can read all, the key included, and run code on workers"


@click.command(
    epilog="\b\nmultihost server\nmultihost server --port 8000 --state /data/multihost\n"
    "multihost server --host 0.0.0.0\n"
    "multihost server --host 0.0.0.0 --tls-cert fullchain.pem --tls-key privkey.pem\n\n"
    "On any address but loopback it speaks TLS. 'multihost key join' prints what another machine "
    "needs.\n\n"
    "SIGTERM or Ctrl-C: takes nothing new, stores what has come, exit code 0. Workers run on and "
    "deliver when the server is back."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=DEFAULT_PORT,
    show_default=True,
    help="Port to listen on; 0 takes a free one.",
)
@click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory for the store and the key. Default: MULTIHOST_STATE, else "
    "~/.local/state/multihost.",
)
@click.option(
    "--durability",
    type=click.Choice([*DURABILITIES]),
    default="power",
    show_default=True,
    help="What acknowledged work survives: a power cut, or only kill -9 of the server.",
)
@click.option("--tls", "is_tls", is_flag=True, help="Speak TLS on loopback, too.")
@click.option(
    "--tls-cert",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Certificate (PEM, with its chain) for TLS. Default: one that the server makes and keeps "
    "in its state directory.",
)
@click.option(
    "--tls-key",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Private key of --tls-cert. Default: in the same file.",
)
@click.option(
    "--address",
    "addresses",
    multiple=True,
    metavar="HOST[:PORT]",
    help="Under which other machines reach the server, for join strings; may be repeated. Default: "
    "all addresses of this machine.",
)
@click.option("--insecure", is_flag=True, help=f"Listen beyond loopback without TLS: {GIVEN_UP}.")
@click.option(
    "--max-blob",
    "max_blob_bytes",
    type=SIZE,
    help="The largest argument or result that is taken. Default: 4GiB.",
)
@click.option(
    "--managers",
    metavar="HOST:PORT",
    help="Also serve queues to unchanged scripts with multiprocessing.managers: each name that "
    "they register is a durable queue.",
)
@click.option(
    "--managers-authkey-file",
    "managers_authkey_files",
    metavar="[TENANT=]FILE",
    multiple=True,
    help="Their authkey, in a file of mode 0600; default: the server's key. Several times, with "
    "tenants: each authkey sees queues of its own.",
)
@click.option(
    "--managers-max-message",
    type=SIZE,
    metavar="SIZE",
    help="Their largest request, an item that they put for instance; the server has it in memory "
    "while it goes by. Default: 256MiB.",
)
@click.option(
    "--store-limit",
    type=SIZE,
    metavar="SIZE",
    help="What the store may hold, such as 50G, before submits are refused. Default: what the "
    "disk holds.",
)
@click.option(
    "--show-key", is_flag=True, help="Print the join string in the line that starts a worker."
)
@click.option("--json", "is_json", is_flag=True, help="When ready, print a line of JSON.")
def server(
    *,
    host: str,
    port: int,
    state: Path | None,
    durability: str,
    is_tls: bool,
    tls_cert: Path | None,
    tls_key: Path | None,
    addresses: tuple[str, ...],
    insecure: bool,
    max_blob_bytes: int | None,
    managers: str | None,
    managers_authkey_files: tuple[str, ...],
    managers_max_message: int | None,
    store_limit: int | None,
    show_key: bool,
    is_json: bool,
) -> int:
    """Start a server: it keeps the queues and the results, and runs until it is told to stop."""
    from multihost.cli.managers import managers_options
    from multihost.runtime import loop
    from multihost.runtime.memory import keep_freed_memory
    from multihost.server.app import ServerOptions
    from multihost.wire.message import MAX_BLOB_BYTES

    keep_freed_memory()

    options = ServerOptions(
        state=(state or config.state_dir()).absolute(),
        host=host,
        port=port,
        durability=durability,
        is_insecure=insecure,
        is_tls=is_tls,
        tls_cert=tls_cert,
        tls_key=tls_key,
        addresses=addresses,
        store_limit_bytes=store_limit,
        max_blob_bytes=max_blob_bytes or MAX_BLOB_BYTES,
        managers=managers_options(managers, managers_authkey_files, managers_max_message),
    )
    try:
        return loop.run(_serve(options, shows_key=show_key, is_json=is_json))
    except OSError as error:
        raise CommandError(_why_not(error, options), Exit.SERVER) from error


async def _serve(options: "ServerOptions", *, shows_key: bool, is_json: bool) -> int:
    from multihost.cli.stopping import when_told_to_stop
    from multihost.runtime.memory import look_less_for_cycles
    from multihost.server import audit, guard
    from multihost.server.app import Server

    server = Server(options)
    guard.install_if_asked()
    audit.write_to_stderr()
    with when_told_to_stop(server.request_stop):
        await server.start()
        look_less_for_cycles()
        if is_json:
            click.echo(json.dumps(_note(server)))
        else:
            _introduce(server, shows_key=shows_key)
        await server.wait()
    # From here on a second signal ends the process at once; acknowledged work is safe then, too.
    await server.stop()
    if server.failure is not None:
        raise CommandError(
            f"the server stopped: {server.failure}; what it had acknowledged is in "
            f"{options.state}. Mend the cause, then start it again",
            Exit.SERVER,
        )
    if not is_json:
        render.tell("stopped; everything acknowledged is stored")
    return Exit.OK


def _note(server: "Server") -> dict[str, Any]:
    options = server.options
    return {
        "url": server.url,
        "pid": os.getpid(),
        "state": str(options.state),
        "key_file": str(options.state / config.KEY_FILE),
        "fingerprint": server.fingerprint,
        "durability": options.durability,
        "managers": _managers_address(server),
        "sqlite": _sqlite_version(),
    }


def _introduce(server: "Server", *, shows_key: bool) -> None:
    options = server.options
    here = "multihost worker"
    if options.state != config.state_dir().absolute():
        here = f"{config.STATE_VARIABLE}={shlex.quote(str(options.state))} {here}"
    lines = [
        f"multihost server at {server.url}, process {os.getpid()}",
        f"  state       {options.state} (SQLite {_sqlite_version()})",
        f"  durability  {options.durability}: {DURABILITIES[options.durability]}",
        f"  TLS         {_tls_line(server)}",
        *_managers_lines(server),
        "",
        "start a worker on this machine:",
        f"  {here}",
        "start a worker on another machine:",
        *(f"  {line}" for line in elsewhere(server, shows_key=shows_key)),
        "",
    ]
    render.tell("\n".join(lines))


def _managers_address(server: "Server") -> str | None:
    if server.door is None:
        return None
    host, port = server.door.address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _managers_lines(server: "Server") -> list[str]:
    options = server.options.managers
    if options is None:
        return []
    key = "the authkeys you named" if options.keys else f"the key in {config.KEY_FILE} as authkey"
    return [f"  managers    {_managers_address(server)}, with {key}"]


def _tls_line(server: "Server") -> str:
    options = server.options
    if server.fingerprint is not None:
        whose = "its own certificate" if options.tls_cert is None else str(options.tls_cert)
        return f"on, {whose}, SHA-256 {server.fingerprint}"
    if is_loopback(options.host):
        return "off: only this machine reaches the server"
    return f"off (--insecure): {GIVEN_UP}"


def elsewhere(server: "Server", *, shows_key: bool) -> list[str]:
    """Lines to copy to another machine's shell to start a worker there."""
    import getpass

    from multihost.cli.joining import command_here, is_for_here_only, make_join

    options = server.options
    login = f"{getpass.getuser()}@{socket.gethostname()}"
    join = make_join(options.state, has_seal=shows_key)  # a server has no business with it
    lines = []
    if is_for_here_only(join):
        # Only this machine reaches the port; ssh carries it over, encrypted.
        _, host, port = parse_url(join.urls[0])
        lines.append(f"ssh -fNL {port}:{bracket(host)}:{port} {login}")
    if shows_key:
        return [*lines, f"{config.JOIN_VARIABLE}={join.text()} multihost worker"]
    get = f"{command_here()} key join"
    if options.state != config.state_dir().absolute():
        get += f" --state {shlex.quote(str(options.state))}"
    return [*lines, f"ssh {login} {get} | multihost worker --join -"]


def _sqlite_version() -> str:
    import apsw

    version: str = apsw.sqlite_lib_version()
    return version


def _why_not(error: OSError, options: "ServerOptions") -> str:
    """Why the server could not start, and what to do about it."""
    from multihost.server.managers.options import DoorError
    from multihost.store.places import NO_ROOM

    if isinstance(error, DoorError):
        return _why_no_door(error, options)
    where = f"{options.host}:{options.port}"
    if error.errno == errno.EADDRINUSE:
        note = read_server_note(options.state)
        if note is not None and parse_url(note.url).port == options.port:
            return (
                f"your server is running already, at {note.url}, process {note.pid}; programs and "
                "workers on this machine find it by themselves"
            )
        return (
            f"{where} is taken by another process; stop that, or choose another port with --port "
            "(0 takes a free one)"
        )
    if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        return f"this machine has no address {options.host}; correct --host"
    if error.errno == errno.EACCES and error.filename is None:
        return f"{where} is not allowed to you; choose a port above 1023 with --port"
    if error.errno in NO_ROOM:
        return (
            f"the disk of the state directory {options.state} is full, and a start takes a few "
            "KiB; make room there. What was acknowledged is kept"
        )
    if error.filename is not None:
        return (
            f"can't use the state directory {options.state}: {error.strerror} "
            f"({error.filename}); correct --state"
        )
    return f"the server can't start: {error.strerror or error}"


def _why_no_door(error: OSError, options: "ServerOptions") -> str:
    """The same of the managers' address."""
    assert options.managers is not None
    host, port = options.managers.host, options.managers.port
    if error.errno == errno.EADDRINUSE:
        return (
            f"--managers {host}:{port} is taken by another process, perhaps by a manager that is "
            "to be replaced; stop that, or choose another port, in the scripts, too"
        )
    if error.errno == errno.EADDRNOTAVAIL or isinstance(error.__cause__, socket.gaierror):
        return f"--managers {host}:{port}: this machine has no address {host}; correct it"
    if error.errno == errno.EACCES:
        return f"--managers {host}:{port} is not allowed to you; choose a port above 1023"
    return f"the server can't listen at --managers {host}:{port}: {error.strerror or error}"
