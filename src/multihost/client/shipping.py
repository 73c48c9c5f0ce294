"""Local code that travels with a job: packages and modules, as archives.

An archive is known by its digest, like any blob, so equal code must make equal
bytes: files are sorted, times are left out. Each thing shipped is an archive
of its own, so that a large package that never changes is sent once, however
often a small module beside it does.
"""

import importlib.util
import io
import os
import sys
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType

from multihost.client.packing import Bulk
from multihost.core.digest import digest_of
from multihost.errors import LimitExceeded, ShipError
from multihost.wire.message import SHIP_BYTES, SHIP_FILES, Blob

Shippable = str | Path | ModuleType
Ship = Shippable | Iterable[Shippable]

LEFT_OUT = frozenset(
    {
        *("__pycache__", ".git", ".hg", ".svn", ".bzr", "CVS", "_darcs"),
        *(".mypy_cache", ".pytest_cache", ".ruff_cache", ".tox", ".nox", ".venv"),
    }
)
"""Directories that do not travel: other people's bytecode, histories, caches."""
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time that an archive can state."""
_OWN = frozenset({"multihost", "__main__"})


def pack_ship(ship: Ship) -> tuple[Bulk, ...]:
    """An archive for each thing; raises ShipError, or LimitExceeded for one that is too large."""
    things = [ship] if isinstance(ship, str | Path | ModuleType) else list(ship)
    packed = [_pack(thing) for thing in things]
    return tuple({bulk.blob.digest: bulk for bulk in packed}.values())


def _pack(thing: Shippable) -> Bulk:
    files: dict[str, Path] = {}
    total = 0
    for name, path in _files_of(thing):
        if name in files:
            continue  # of a namespace package, and Python takes the first as well
        if "\\" in name or name.encode(errors="replace").decode() != name:
            text = f"{str(path)!r}: a name with a backslash, or that is no UTF-8, can't travel"
            raise ShipError(text)
        files[name] = path
        total += path.stat().st_size
        # As they are found: it may be a whole disk that is named.
        if total > SHIP_BYTES or len(files) > SHIP_FILES:
            is_long = len(files) > SHIP_FILES
            limit, value = (SHIP_FILES, len(files)) if is_long else (SHIP_BYTES, total)
            raise LimitExceeded(
                f"{_told(thing)} has more than {limit:,} {'files' if is_long else 'bytes'}, which "
                f"is the limit {'SHIP_FILES' if is_long else 'SHIP_BYTES'} for what ship= sends: "
                "ship the modules that are needed, or install it on the workers "
                "(multihost worker --path DIR)",
                "SHIP_FILES" if is_long else "SHIP_BYTES",
                value,
            )
    if not files:
        raise ShipError(f"{_told(thing)} has no files to ship")
    data = _archive(sorted(files.items()))
    return Bulk(Blob(digest_of(data), len(data)), data)


def _archive(files: Iterable[tuple[str, Path]]) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name, path in files:
            member = zipfile.ZipInfo(name, _EPOCH)
            member.compress_type = zipfile.ZIP_DEFLATED
            member.create_system = 3  # the same bytes on every system
            is_program = os.access(path, os.X_OK) and os.name == "posix"
            member.external_attr = (0o755 if is_program else 0o644) << 16
            archive.writestr(member, path.read_bytes())
    return target.getvalue()


# --- what is meant --------------------------------------------------------------------------


def _files_of(thing: Shippable) -> Iterator[tuple[str, Path]]:
    """Files with the names that they are to have below a directory of ``sys.path``."""
    if isinstance(thing, ModuleType):
        return _module_files(thing.__name__)
    if isinstance(thing, Path) or _is_path(thing):
        return _path_files(Path(thing).expanduser().absolute())
    return _module_files(thing)


def _is_path(text: str) -> bool:
    return text.endswith(".py") or "/" in text or os.sep in text or text in {".", ".."}


def _path_files(path: Path) -> Iterator[tuple[str, Path]]:
    if path.is_file():
        if path.suffix != ".py" or not path.stem.isidentifier():
            raise ShipError(f"ship={str(path)!r} is no module: a file NAME.py is, or a directory")
        _check_name(path.stem)
        return iter([(path.name, path)])
    if not path.is_dir():
        raise ShipError(f"ship={str(path)!r}: there is no such file or directory")
    if not (path / "__init__.py").exists():
        return _walk(path, "")
    if not path.name.isidentifier():
        raise ShipError(f"ship={str(path)!r} is a package, but its name is none for a module")
    _check_name(path.name)
    return _walk(path, path.name + "/")


def _module_files(name: str) -> Iterator[tuple[str, Path]]:
    """Files of the module of this name; of a part of a package, those of the whole package."""
    top = name.partition(".")[0]
    _check_name(top)
    module = sys.modules.get(top)
    try:
        spec = getattr(module, "__spec__", None) or importlib.util.find_spec(top)
    except (ImportError, ValueError) as error:
        raise ShipError(f"ship={name!r}: the module can't be looked up ({error})") from None
    if spec is None:
        raise ShipError(
            f"ship={name!r}: there is no module of that name here; give the path of its directory "
            "or of its .py file, or the name it is imported under"
        )
    if spec.submodule_search_locations is not None:
        for directory in spec.submodule_search_locations:
            yield from _walk(Path(directory), top + "/")
        return
    if spec.origin is None or not Path(spec.origin).is_file():
        raise ShipError(f"ship={name!r}: the module has no file that could be sent")
    yield Path(spec.origin).name, Path(spec.origin)


def _check_name(name: str) -> None:
    if name in _OWN:
        why = (
            "what __main__ defines travels by itself"
            if name == "__main__"
            else "workers have their own"
        )
        raise ShipError(f"ship={name!r}: {why}")
    if name in sys.stdlib_module_names:
        raise ShipError(f"ship={name!r}: it comes with Python, and the worker has its own")


def _walk(top: Path, prefix: str) -> Iterator[tuple[str, Path]]:
    """Files below a directory, links followed, with names that begin with ``prefix``."""
    for place, directories, files in os.walk(top, followlinks=True, onerror=_raise):
        if _is_loop(Path(place), top):
            directories.clear()
            continue
        directories[:] = sorted(name for name in directories if name not in LEFT_OUT)
        for name in sorted(files):
            path = Path(place) / name
            if path.is_file() and path.suffix != ".pyc":
                yield prefix + path.relative_to(top).as_posix(), path


def _is_loop(place: Path, top: Path) -> bool:
    """Whether it is a link to a directory that it lies in."""
    above = [parent for parent in place.parents if parent.is_relative_to(top)]
    return any(place.samefile(parent) for parent in above)


def _raise(error: OSError) -> None:
    raise ShipError(f"{error.filename} can't be read: {error.strerror}") from None


def _told(thing: Shippable) -> str:
    return f"the module {thing.__name__}" if isinstance(thing, ModuleType) else str(thing)
