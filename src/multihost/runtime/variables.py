"""Variables of the environment that look like ours and are none.

A program whose ``MULTIHOST_JION`` nobody reads runs well, on its own machine,
and its user believes that it runs on all of them.
"""

import os

PREFIX = "MULTIHOST_"
KNOWN = frozenset(
    {
        *("JOIN", "URL", "KEY", "CA_FILE", "INSECURE", "STATE", "CONFIG", "CACHE", "SEAL"),
        *("GUARD", "OUTPUT", "SPIN", "EMBEDDED"),
    }
)
_NAMES = frozenset(PREFIX + name for name in KNOWN)
_ALSO_CALLED = {"SERVER": "URL", "ADDRESS": "URL", "HOST": "URL", "PASSWORD": "KEY"}
"""What others call it, where no letters are alike."""


def documented() -> list[str]:
    """Those that are for users to set."""
    return sorted(_NAMES - {PREFIX + "EMBEDDED"})


def unknown() -> dict[str, str | None]:
    """Variables with our prefix that mean nothing, each with the one that was meant, if any."""
    return {
        name: _meant(name[len(PREFIX) :].upper())
        for name in sorted(os.environ)
        if name.upper().startswith(PREFIX) and name not in _NAMES
    }


def _meant(name: str) -> str | None:
    import difflib

    words = name.split("_")
    named = [word for word in (name, *words) if word in KNOWN]
    near = named or [_ALSO_CALLED[word] for word in words if word in _ALSO_CALLED]
    near = near or difflib.get_close_matches(name, KNOWN, n=1, cutoff=0.7)
    return PREFIX + near[0] if near else None
