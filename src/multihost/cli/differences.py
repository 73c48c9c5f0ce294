"""What of the workers' machines differs from this one, for ``multihost doctor``."""

from collections.abc import Iterator
from typing import Any

from multihost.cli import render
from multihost.cli.finding import Finding, Level
from multihost.runtime import config
from multihost.runtime.config import Target
from multihost.runtime.packages import installed_packages
from multihost.runtime.secret import SEAL_VARIABLE
from multihost.wire.seal import Seal

SHOWN_PACKAGES = 6


def packages_of(row: dict[str, Any]) -> Finding:
    """Whether a worker has what is here, in the same versions."""
    here, there = installed_packages(), row["packages"]
    others = [
        f"{name} {there[name]} (here {version})"
        for name, version in here.items()
        if there.get(name, version) != version
    ]
    missing = [name for name in here if name not in there]
    text = f"{row['python']}, {render.many(len(there), 'package')}"
    if missing:
        text += f"; not there: {_some(missing)}"
    about = f"worker {row['worker']}"
    if not others:
        return Finding(Level.OK, about, text)
    remedy = (
        "what is pickled by one version may not load in another: install the same ones, or send "
        "your own code along with ship="
    )
    return Finding(Level.WARN, about, f"{text}; other versions: {_some(others)}", remedy)


def _some(words: list[str]) -> str:
    more = f" and {len(words) - SHOWN_PACKAGES} more" if len(words) > SHOWN_PACKAGES else ""
    return ", ".join(words[:SHOWN_PACKAGES]) + more


def seals_of(target: Target, rows: list[dict[str, Any]]) -> Iterator[Finding]:
    """Whether programs here and the workers can check what the others sign."""
    mine = "" if target.seal is None else Seal(target.seal).id.hex()
    lacking = [row["worker"] for row in rows if row["seal"] != mine]
    if not mine and not lacking:
        text = "none: workers and programs run what the server hands them"
        yield Finding(Level.OK, "seal", text, "join strings ('multihost key join') bring one along")
    elif not lacking:
        text = f"{mine}, here and at every worker: what is run or unpickled is signed"
        yield Finding(Level.OK, "seal", text)
    else:
        text = f"{mine or 'none'} here; another one, or none, at {_some(lacking)}"
        remedy = (
            f"give both the same: a join string, {SEAL_VARIABLE} or {config.seal_file()}; "
            "until then their tasks end with SealError"
        )
        yield Finding(Level.WARN, "seal", text, remedy)
