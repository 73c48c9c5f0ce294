"""Draws the generated documents from the tables in the code: states and protocol.

``python scripts/diagrams.py`` writes them, ``--check`` fails when one is stale.
"""

import sys
from pathlib import Path

from multihost.core.state import TRANSITIONS, TaskState
from multihost.wire.message import Message, Role
from multihost.wire.session import LEGAL_FROM_PEER, LEGAL_FROM_SERVER, Phase

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
            lines.append(f"| {role} | {phase} | {_names(LEGAL_FROM_SERVER[role, phase])} |")
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


def _kinds() -> list[type[Message]]:
    return list(Message.__subclasses__())


def _names(kinds: frozenset[type[Message]]) -> str:
    return ", ".join(sorted(kind.__name__ for kind in kinds))


def _word(member: object) -> str:
    return str(getattr(member, "name", member)).lower()


def main() -> int:
    """Write the documents, or compare them."""
    documents = {"states.md": states(), "protocol.md": protocol()}
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
