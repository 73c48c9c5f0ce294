"""``multihost demo``: a real job under real kills, with the proof that nothing was lost."""

from pathlib import Path

import click

from multihost.cli import render
from multihost.cli.exits import CommandError, Exit
from multihost.cli.options import as_json


@click.command(
    epilog="\b\nmultihost demo\nmultihost demo --inputs ~/src --quick\n\n"
    "Everything happens in a temporary directory, with a server and a key of its own; nothing "
    "stays behind. Exit code 1 when the proof fails."
)
@click.option("--quick", is_flag=True, help="Fewer files.")
@click.option(
    "--inputs",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Measure the Python files below this directory instead of Python's own.",
)
@as_json
def demo(quick: bool, inputs: Path | None, is_json: bool) -> int:
    """Measure Python's own source; kill a worker and the server; count what came back.

    Takes less than a minute on two cores.
    """
    from multihost.demo import inputs as sources
    from multihost.demo import report
    from multihost.demo.proof import prove
    from multihost.demo.story import tell

    files = sources.find(inputs, sources.QUICK if quick else sources.MOST)
    if not files:
        raise CommandError(f"there is no Python file below {inputs}", Exit.USAGE)
    try:
        with report.progress(len(files)) as (say, advance):
            story = tell(files, say, advance)
    except KeyboardInterrupt:
        render.say("interrupted; its processes and its directory are gone")
        raise
    proof = prove(story)
    if is_json:
        render.show_json({**proof._asdict(), "holds": proof.holds})
    else:
        report.show_all(story, proof)
    return Exit.OK if proof.holds else Exit.FAILED
