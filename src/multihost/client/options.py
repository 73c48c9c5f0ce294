"""What can be said about a submit besides the function and its arguments."""

from collections.abc import Sequence
from typing import Any

import msgspec

from multihost.client.packing import Bulk
from multihost.client.printer import is_shown
from multihost.core.job import JobSpec
from multihost.core.retry import Limits

PATIENCE_S = 300.0
"""How long a client tries to come back to a server before it gives up its work."""
EMBEDDED_PATIENCE_S = 1.0
"""An embedded server that is gone does not come back."""

_PLAIN = frozenset(
    {
        *("queue", "priority", "delay_s", "timeout_s", "ttl_s", "label", "unique_key"),
        "retention_s",
    }
)
_REQUIRES = frozenset({"host", "tags"})
NAMES = tuple(sorted(_PLAIN | _REQUIRES | {"max_attempts", "output"}))
"""Options that ``Client.options`` takes."""


def with_options(spec: JobSpec, options: dict[str, Any]) -> JobSpec:
    """A job like ``spec`` with some options changed; raises TypeError for an unknown one."""
    for name in options:
        if name not in NAMES:
            message = f"there is no option {name!r}; there are {', '.join(NAMES)}"
            raise TypeError(message)
    plain = {name: value for name, value in options.items() if name in _PLAIN}
    requires = {name: value for name, value in options.items() if name in _REQUIRES}
    if "tags" in requires:
        requires["tags"] = tuple(requires["tags"])
    if requires:
        plain["requires"] = msgspec.structs.replace(spec.requires, **requires)
    if "max_attempts" in options:
        plain["limits"] = Limits(options["max_attempts"], *spec.limits[1:])
    if "output" in options:
        plain["wants_output"] = bool(options["output"]) and is_shown()
    return msgspec.structs.replace(spec, **plain)


def first_spec(shipped: Sequence[Bulk], *, output: bool) -> JobSpec:
    """What a client submits that was given no options."""
    digests = tuple(bulk.blob.digest for bulk in shipped)
    return JobSpec(is_transient=True, ship=digests, wants_output=output and is_shown())
