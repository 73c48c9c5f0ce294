"""Draws the generated documents from the tables in the code: states, protocol and roles.

``python scripts/diagrams.py`` writes them, ``--check`` fails when one is stale.
"""

import sys
from pathlib import Path

from multihost.core.state import TRANSITIONS, TaskState
from multihost.server.routes import WAYS
from multihost.wire.keys import KeyRole
from multihost.wire.message import Message, Role
from multihost.wire.session import LEGAL_FROM_PEER, LEGAL_FROM_SERVER, MAY_SEND, Phase

DOCS = Path(__file__).parent.parent / "docs" / "reference"
NOTE = "<!-- Made by `make docs` from the code; don't edit. -->"


def states() -> str:
    """The states of a task as a diagram and a table."""
    lines = [NOTE, "", "# States of a task", "", "```mermaid", "stateDiagram-v2"]
    lines += ["    [*] --> queued", "    [*] --> blocked"]
    for (before, event), after in TRANSITIONS.items():
        lines.append(f"    {_word(before)} --> {_word(after)}: {_word(event)}")
    lines += [f"    {_word(state)} --> [*]" for state in TaskState if state.is_final]
    lines += ["```", "", "| state | event | next |", "|---|---|---|"]
    for (before, event), after in TRANSITIONS.items():
        lines.append(f"| {_word(before)} | {_word(event)} | {_word(after)} |")
    lines += [
        "",
        "Any other pair is an error. `src/multihost/core/state.py` is the table; every store",
        "is held to it by the conformance suite.",
        "",
    ]
    return "\n".join(lines)


def protocol() -> str:
    """Every message, and when it is legal."""
    lines = [NOTE, "", "# The protocol", ""]
    lines += [
        "Binary WebSocket frames on `/ws`; a frame is a msgpack array of messages, a message an",
        "array that begins with its tag. `src/multihost/wire/message.py` defines them.",
        "",
        "## What the server accepts",
        "",
        "| from | in phase | messages |",
        "|---|---|---|",
    ]
    for (role, phase), kinds in LEGAL_FROM_PEER.items():
        lines.append(f"| {role or 'anybody'} | {phase} | {_names(kinds)} |")
    lines += ["", "## What a peer accepts", "", "| peer | in phase | messages |", "|---|---|---|"]
    for role in Role:
        for phase in Phase:
            kinds = LEGAL_FROM_SERVER.get((role, phase))
            if kinds is not None:
                lines.append(f"| {role} | {phase} | {_names(kinds)} |")
    lines += [
        "",
        "## The messages",
        "",
        "| tag | message | fields | meaning |",
        "|---|---|---|---|",
    ]
    for kind in sorted(_kinds(), key=lambda kind: kind.__struct_config__.tag):
        fields = ", ".join(f"`{name}`" for name in kind.__struct_fields__) or "-"
        meaning = (kind.__doc__ or "").strip().splitlines()[0]
        lines.append(f"| {kind.__struct_config__.tag} | {kind.__name__} | {fields} | {meaning} |")
    lines.append("")
    return "\n".join(lines)


def roles() -> str:
    """Who may send which message and use which route."""
    lines = [NOTE, "", "# What each role of a key may do", ""]
    lines += [f"- **{role}**: {_ROLES[role]}" for role in KeyRole]
    lines += [
        "",
        "A key has one role. What it may not do is refused with an error that says which role the",
        "key has and which it takes; nothing is done, and the connection goes on.",
        "`multihost key new` makes keys: see [the guide](../guide/keys.md).",
        "",
        "## Messages",
        "",
        "Hello and Proof come before the role is known. The table is `MAY_SEND` in",
        "`src/multihost/wire/session.py`.",
        "",
        _role_titles("message"),
    ]
    lines += [f"| {kind.__name__} | {_ticks(allowed)} |" for kind, allowed in MAY_SEND.items()]
    lines += [
        "",
        "## HTTP",
        "",
        "`/healthz` is open to everybody. `src/multihost/server/routes.py` has the table.",
        "",
        _role_titles("request"),
    ]
    for way in WAYS:
        if way.roles is not None:
            lines.append(f"| {way.method} {way.path} | {_ticks(way.roles)} |")
    lines.append("")
    return "\n".join(lines)


_ROLES = {
    KeyRole.ADMIN: "everything: keys, backups, pausing queues, and all that the others may.",
    KeyRole.SUBMIT: "a client's: jobs, results, cancelling, queues of items, locks, listings.",
    KeyRole.WORK: "a worker's: take tasks, say how they ended; neither submit nor list.",
    KeyRole.VIEW: "listings, over HTTP or from a client.",
}


def _role_titles(first: str) -> str:
    names = " | ".join(KeyRole)
    return f"| {first} | {names} |\n|---|{'---|' * len(KeyRole)}"


def _ticks(allowed: frozenset[KeyRole]) -> str:
    return " | ".join("yes" if role in allowed else "-" for role in KeyRole)


def _kinds() -> list[type[Message]]:
    return list(Message.__subclasses__())


def _names(kinds: frozenset[type[Message]]) -> str:
    return ", ".join(sorted(kind.__name__ for kind in kinds))


def _word(member: object) -> str:
    return str(getattr(member, "name", member)).lower()


def main() -> int:
    """Write the documents, or compare them."""
    documents = {"states.md": states(), "protocol.md": protocol(), "roles.md": roles()}
    stale = []
    for name, text in documents.items():
        path = DOCS / name
        if "--check" in sys.argv:
            if not path.exists() or path.read_text() != text:
                stale.append(name)
        else:
            path.write_text(text)
    if stale:
        sys.stderr.write(f"stale: {', '.join(stale)} in {DOCS}; run 'make docs'\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
