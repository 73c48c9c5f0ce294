"""What can be said about a submit besides the function and its arguments."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from multihost.client.arguments import number, text, texts, whole
from multihost.client.packing import Bulk
from multihost.client.printer import is_shown
from multihost.core.job import JobSpec
from multihost.core.retry import Limits

PATIENCE_S = 300.0
"""How long a client tries to come back to a server before it gives up its work."""
EMBEDDED_PATIENCE_S = 1.0
"""An embedded server that is gone does not come back."""

_PLAIN: dict[str, Callable[[str, object], object]] = {
    "queue": text,
    "priority": whole,
    "delay_s": number,
    "timeout_s": number,
    "ttl_s": number,
    "label": text,
    "unique_key": text,
    "retention_s": number,
}
_REQUIRES: dict[str, Callable[[str, object], object]] = {"host": text, "tags": texts}
_MAY_BE_NONE = frozenset({"timeout_s", "ttl_s", "unique_key", "host"})
NAMES = tuple(sorted({*_PLAIN, *_REQUIRES, "max_attempts", "output"}))
"""Options that ``Client.options`` takes."""


def with_options(spec: JobSpec, options: dict[str, Any]) -> JobSpec:
    """A job like ``spec`` with some options changed.

    Raises TypeError for an unknown one, and for one that is no number where it has to be.
    """
    for name in options:
        if name not in NAMES:
            message = f"there is no option {name!r}; there are {', '.join(NAMES)}"
            raise TypeError(message)
    plain = _chosen(options, _PLAIN)
    requires = _chosen(options, _REQUIRES)
    if requires:
        plain["requires"] = msgspec.structs.replace(spec.requires, **requires)
    if "max_attempts" in options:
        plain["limits"] = Limits(whole("max_attempts", options["max_attempts"]), *spec.limits[1:])
    if "output" in options:
        plain["wants_output"] = bool(options["output"]) and is_shown()
    return msgspec.structs.replace(spec, **plain)


def _chosen(
    options: dict[str, Any], kinds: dict[str, Callable[[str, object], object]]
) -> dict[str, Any]:
    """Those of ``options`` that have their kind in ``kinds``, as that has them."""
    return {
        name: None if value is None and name in _MAY_BE_NONE else kinds[name](name, value)
        for name, value in options.items()
        if name in kinds
    }


def first_spec(shipped: Sequence[Bulk], *, output: bool) -> JobSpec:
    """What a client submits that was given no options."""
    digests = tuple(bulk.blob.digest for bulk in shipped)
    return JobSpec(is_transient=True, ship=digests, wants_output=output and is_shown())
