"""What travels through the queues."""

import subprocess
import time


class Job:
    """A command, who wants it, and what became of it."""

    def __init__(self, number, command, user):
        self.number = number
        self.command = command
        self.user = user
        self.status = "waiting"
        self.submitted_at = time.time()
        self.finished_at = None
        self.exit_code = None
        self.output = ""

    def run(self):
        done = subprocess.run(self.command, capture_output=True, text=True, check=False)
        self.exit_code, self.output = done.returncode, done.stdout + done.stderr
        self.status = "finished" if done.returncode == 0 else "failed"
        self.finished_at = time.time()

    def __str__(self):
        code = "" if self.exit_code is None else f", exit code {self.exit_code}"
        return f"job {self.number} of {self.user}: {self.status}{code}"
