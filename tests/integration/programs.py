"""Programs as a user has them: files that are run, with nothing configured."""

import os
import subprocess
import sys
import textwrap

WAIT_S = 60


def start(tmp_path, source, **options):
    """A program that runs."""
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(source))
    options.setdefault("stderr", subprocess.PIPE)
    environment = {**os.environ, **options.pop("environment", {})}
    return subprocess.Popen(
        [sys.executable, "-W", "error::RuntimeWarning", str(path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=environment,
        **options,
    )


def run(tmp_path, source, **options):
    """Stdout and stderr of a program that has to end well."""
    program = start(tmp_path, source, **options)
    out, err = program.communicate(timeout=WAIT_S)
    assert program.returncode == 0, err
    return out, err
