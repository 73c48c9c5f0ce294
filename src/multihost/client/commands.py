"""Commands: programs that a worker runs, as tasks."""

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from multihost.client.stream import Stream
from multihost.core.job import JobSpec, Style

if TYPE_CHECKING:
    from multihost.client.session import Session


def command_stream(
    session: "Session",
    options: JobSpec,
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None,
    cwd: str | None,
    stdin: bytes | None,
) -> tuple[Stream, bytes]:
    """A job for one command, and its payload; raises ValueError for an empty ``argv``."""
    if isinstance(argv, str) or not argv:
        message = "a command is a sequence of strings, such as ['convert', 'a.png', 'a.jpg']"
        raise ValueError(message)
    words = [str(word) for word in argv]
    spec = msgspec.structs.replace(
        options, style=Style.COMMAND, label=options.label or shlex.join(words), ship=()
    )
    content: dict[str, object] = {"argv": words}
    if env is not None:
        content["env"] = dict(env)
    if cwd is not None:
        content["cwd"] = str(cwd)
    if stdin is not None:
        content["stdin"] = stdin
    return Stream(session, spec, is_watched=True), msgspec.msgpack.encode(content)
