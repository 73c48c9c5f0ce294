"""Options of ``multihost server`` for clients of the standard library's managers."""

from pathlib import Path
from typing import TYPE_CHECKING

from multihost.errors import ConfigError
from multihost.runtime.secret import read_authkey

if TYPE_CHECKING:
    from multihost.server.managers.options import ManagersOptions

MAX_PORT = 65535


def managers_options(
    address: str | None, authkey_files: tuple[str, ...], max_message_bytes: int | None = None
) -> "ManagersOptions | None":
    """What ``--managers`` and the options that go with it say; raises ConfigError."""
    if address is None:
        for option, value in (
            ("--managers-authkey-file", authkey_files),
            ("--managers-max-message", max_message_bytes),
        ):
            if value:
                raise ConfigError(f"{option} is of use only with --managers HOST:PORT")
        return None
    from multihost.server.managers.framing import MAX_MESSAGE_BYTES
    from multihost.server.managers.options import ManagersOptions

    host, port = parse_address(address)
    return ManagersOptions(
        *(host, port, tuple(_read(each) for each in authkey_files)),
        max_message_bytes=max_message_bytes or MAX_MESSAGE_BYTES,
    )


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of ``127.0.0.1:5000``, ``[::1]:5000`` or ``:5000`` (every address)."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > MAX_PORT:
        raise ConfigError(f"{text!r} is no HOST:PORT, such as 127.0.0.1:5000")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _read(text: str) -> tuple[str, bytes]:
    """Tenant and authkey of ``FILE`` or ``TENANT=FILE``."""
    tenant, equals, path = text.rpartition("=")
    if equals and (not tenant or "/" in tenant):
        raise ConfigError(f"{text!r} is neither FILE nor TENANT=FILE; a tenant has no slash in it")
    return tenant, read_authkey(Path(path).expanduser())
