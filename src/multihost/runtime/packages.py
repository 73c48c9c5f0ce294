"""Which packages this Python has, read from the names of their directories.

Opening what each says of itself, as the standard library does, takes a hundred times as long.
"""

import sys
from pathlib import Path

MAX_PACKAGES = 2000
"""That are told; beyond that come the first ones by name."""
_ENDING = ".dist-info"


def installed_packages() -> dict[str, str]:
    """Versions by name, as ``pip`` normalizes it; of two in different places the first."""
    found: dict[str, str] = {}
    for path in sys.path:
        try:
            names = [entry.name for entry in Path(path or ".").iterdir()]
        except OSError:  # a zip file, or nothing
            continue
        for name in names:
            if name.endswith(_ENDING):
                package, dash, version = name.removesuffix(_ENDING).partition("-")
                if dash:
                    found.setdefault(package.lower().replace("_", "-").replace(".", "-"), version)
    return dict(sorted(found.items())[:MAX_PACKAGES])
