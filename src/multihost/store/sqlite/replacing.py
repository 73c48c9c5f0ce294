"""One store put in the place of another, whole or not at all.

The old one is three files, which are moved aside one after the other. Whoever is killed
between has left the new one ready under a name of its own, and the next to open
the store goes on from there: a database without its log and its journal is an older one.
"""

from pathlib import Path

from multihost.store.places import journal_of, sync_directory


def ready_place(path: Path) -> Path:
    """Where the store that is to be the one at ``path`` waits for that, finished."""
    return path.with_name(f"{path.name}.restored")


def replace(path: Path) -> Path | None:
    """Put the store that is ready at ``path``, which is locked; where the old one is now."""
    moved = _move_aside(path)
    sync_directory(path.parent)
    ready_place(path).rename(path)
    sync_directory(path.parent)
    return moved


def finish_replacing(path: Path) -> None:
    """Go on with what was begun by somebody who is no more."""
    if ready_place(path).exists():
        replace(path)


def _move_aside(path: Path) -> Path | None:
    """Rename the store at ``path`` with its log and its journal; the database comes last."""
    if not path.exists():
        return None
    number = 1
    while (aside := path.with_name(f"{path.name}.replaced-{number}")).exists():
        number += 1
    places = ((Path(f"{path}-wal"), Path(f"{aside}-wal")), (journal_of(path), journal_of(aside)))
    for beside, place in places:
        if beside.exists():
            beside.rename(place)
    path.rename(aside)
    return aside
