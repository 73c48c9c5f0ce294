"""Running the command line as users do: as a process of its own."""

import json
import os
import subprocess
import sys

from multihost.cli.exits import Exit

TIMEOUT_S = 40


class Shell:
    """A shell with some variables set; ``run`` is a command typed into it."""

    def __init__(self, **variables):
        self.environment = {**os.environ, **variables}

    def start(self, *arguments, **options):
        return subprocess.Popen(
            [sys.executable, "-m", "multihost", *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )

    def run(self, *arguments):
        with self.start(*arguments) as process:
            output, errors = process.communicate(timeout=TIMEOUT_S)
        assert "Traceback" not in errors, errors
        return Exit(process.returncode), output, errors

    def json(self, *arguments):
        code, output, errors = self.run(*arguments, "--json")
        assert code is Exit.OK, errors
        return json.loads(output)
