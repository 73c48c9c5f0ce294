"""``multihost doctor``: what is wrong with this installation or connection, and how to mend it."""

from pathlib import Path

import click

from multihost.cli import render
from multihost.cli.checkup import examine
from multihost.cli.exits import Exit
from multihost.cli.finding import Finding, Level
from multihost.cli.options import as_json, server_options

INDENT = 18
COLOURS = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "red"}


@click.command(
    epilog="\b\nmultihost doctor\nmultihost doctor --server http://host:7077 --key-file key\n\n"
    "Exit code 1 when a line says fail. The key itself is never shown."
)
@server_options
@as_json
def doctor(url: str | None, key_file: Path | None, is_json: bool) -> int:
    """Check Python, packages, configuration, server, key, workers, disk and limits."""
    findings = examine(url, key_file)
    if is_json:
        render.show_json([{**finding._asdict(), "level": finding.level} for finding in findings])
    else:
        for finding in findings:
            _show(finding)
    return Exit.FAILED if any(finding.level is Level.FAIL for finding in findings) else Exit.OK


def _show(finding: Finding) -> None:
    level = click.style(f"{finding.level:<4}", fg=COLOURS[finding.level])
    render.show(f"{level}  {finding.about:<10}  {render.wrap(finding.text, INDENT)}")
    if finding.remedy:
        render.show(f"{'':<{INDENT}}-> {render.wrap(finding.remedy, INDENT + 3)}")
