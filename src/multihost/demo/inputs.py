"""Which files the demo measures: Python source that every machine has."""

import hashlib
import sysconfig
from pathlib import Path

MOST = 3000
QUICK = 600


def find(directory: Path | None, limit: int) -> list[str]:
    """Python files below ``directory`` or of this Python and its packages; each content once.

    Of more than ``limit`` an even selection, the same each time.
    """
    roots = [directory] if directory is not None else _installed()
    paths = sorted({path for root in roots for path in root.resolve().rglob("*.py")})
    unique: dict[bytes, str] = {}
    for path in filter(Path.is_file, paths):
        unique.setdefault(hashlib.sha256(path.read_bytes()).digest(), str(path))
    files = list(unique.values())
    step = max(1.0, len(files) / limit)
    return [files[int(at * step)] for at in range(min(limit, len(files)))]


def _installed() -> list[Path]:
    """The standard library and site-packages."""
    return [Path(sysconfig.get_paths()[name]) for name in ("stdlib", "purelib")]
