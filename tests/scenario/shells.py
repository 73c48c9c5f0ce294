"""Programs in shells of their own, as the people have them who run the examples."""

import os
import signal
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"
WAIT_S = 60.0


class Program:
    """A running program; its lines can be waited for."""

    def __init__(self, script, *arguments, environment=None, prefix=()):
        self.name = Path(script).name
        self._lines = deque()
        self._came = threading.Condition()
        self._has_ended = False
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-u", str(script), *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **(environment or {})},
            cwd=Path(script).parent,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        with self.process.stdout:
            for line in self.process.stdout:
                with self._came:
                    self._lines.append(line.rstrip("\n"))
                    self._came.notify_all()
        with self._came:
            self._has_ended = True
            self._came.notify_all()

    @property
    def lines(self):
        """What it has printed so far."""
        with self._came:
            return list(self._lines)

    def wait_for(self, start, count=1):
        """The lines that begin so, as soon as there are so many."""

        def found():
            return [line for line in self._lines if line.startswith(start)]

        with self._came:
            self._came.wait_for(lambda: len(found()) >= count or self._has_ended, WAIT_S)
            assert len(found()) >= count, f"{self.name} printed:\n" + "\n".join(self._lines)
            return found()

    def finish(self):
        """All its lines; it has to end by itself, and well."""
        try:
            code = self.process.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            code = "none"
        with self._came:
            self._came.wait_for(lambda: self._has_ended, WAIT_S)
        assert code == 0, f"{self.name}: exit code {code}\n" + "\n".join(self.lines)
        return self.lines

    def kill(self):
        """``kill -9``, and wait until it is gone."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(WAIT_S)
        self._reader.join(WAIT_S)

    def interrupt(self):
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)


def standard(script, directory):
    """The same script for the standard library: only its import differs."""
    text = Path(script).read_text()
    assert "from multihost.managers import BaseManager" in text
    copy = Path(directory) / Path(script).name
    copy.write_text(
        text.replace(
            "from multihost.managers import BaseManager",
            "from multiprocessing.managers import BaseManager",
        )
    )
    return copy
