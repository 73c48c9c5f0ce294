"""Python installations, scripts as people write them, and a server that serves them."""

import os
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

from multihost.testing import wait_until
from multihost.testing.ports import free_port

RECIPES = Path(__file__).parent / "recipes"
STANDARD = "from multiprocessing.managers"
OURS = "from multihost.managers"
VERSIONS = ("3.6", "3.7", "3.8", "3.9", "3.10", "3.11", "3.12", "3.13")


def pythons():
    """Interpreters by version, as far as they are installed."""
    found = {f"{sys.version_info[0]}.{sys.version_info[1]}": sys.executable}
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for version in VERSIONS:
        installed = sorted(pyenv.glob(f"{version}.*/bin/python"))
        path = str(installed[-1]) if installed else shutil.which(f"python{version}")
        if path and version not in found and runs(path):
            found[version] = path
    return found


def runs(path):
    """Whether it is an interpreter, and not what a version manager has put in its place."""
    return subprocess.run([path, "-c", ""], check=False, capture_output=True).returncode == 0


class Script:
    """A recipe that runs; its lines are read as they come."""

    def __init__(self, command, environment=None):
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    def wait_for(self, line, count=1):
        def seen():
            is_there = self.lines.count(line) >= count
            assert is_there or self.process.poll() is None or self._reader.is_alive(), self.lines
            return is_there

        wait_until(seen, f"{line!r} among {self.lines}")

    def results(self, word="result "):
        return sorted(line[len(word) :] for line in self.lines if line.startswith(word))

    def end(self, code=0):
        """Wait for its end in good order."""
        assert self.process.wait(40) == code, "\n".join(self.lines)
        self._reader.join(10)
        return self.lines

    def kill(self):
        self.process.kill()
        self.close()

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join(10)
        self.process.stdin.close()
        self.process.stdout.close()


class Stage:
    """Runs recipes in a directory of its own, and ends them."""

    def __init__(self, directory):
        self.directory = directory
        self.port = free_port()
        self.scripts = []
        self.state = directory / "state"
        self.environment = {**os.environ, "MULTIHOST_STATE": str(self.state)}

    def run(self, recipe, *arguments, ours=False, python=sys.executable):
        text = (RECIPES / f"{recipe}.py").read_text()
        assert text.count(STANDARD) == 1
        path = self.directory / f"{recipe}_{'ours' if ours else 'standard'}.py"
        if not path.exists():  # else one that is just starting might read half of it
            path.write_text(text.replace(STANDARD, OURS) if ours else text)
        script = Script([python, str(path), str(self.port), *arguments], self.environment)
        self.scripts.append(script)
        return script

    def close(self):
        for script in self.scripts:
            script.close()


class Server(Stage):
    """``multihost server --managers``, to be killed and started again."""

    def __init__(self, directory, keys=(("", "abc"),), options=()):
        super().__init__(directory)
        self.http_port = free_port()
        self.server = None
        self.log = (directory / "log.txt").open("ab")
        self.key_options = [*options]
        for tenant, key in keys:
            path = directory / f"authkey-{tenant or 'plain'}"
            path.write_text(key + "\n")
            path.chmod(0o600)
            named = f"{tenant}={path}" if tenant else str(path)
            self.key_options += ["--managers-authkey-file", named]
        self.start()

    def start(self):
        self.server = subprocess.Popen(
            [
                *(sys.executable, "-m", "multihost", "server", "--durability", "process"),
                *("--state", str(self.directory / "server"), "--port", str(self.http_port)),
                *("--managers", f"127.0.0.1:{self.port}", *self.key_options),
            ],
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
        )
        wait_until(self._is_up, "the managers' port answers")

    def _is_up(self):
        assert self.server.poll() is None, (self.directory / "log.txt").read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self):
        self.server.kill()
        self.server.wait()

    def close(self):
        super().close()
        self.server.terminate()
        self.server.wait(20)
        self.log.close()
