"""What a worker is started with, and the graces and limits it keeps."""

import os
import platform
import socket as sockets
from dataclasses import dataclass, field
from pathlib import Path

from multihost.core.resources import Offer
from multihost.runtime.config import Target
from multihost.runtime.trust import Trust

DRAIN_S = 30.0
"""How long running tasks may go on after the first SIGTERM."""
INTERRUPT_S = 1.0
"""Time between raising in a task's code and SIGTERM to its process."""
TERMINATE_S = 2.0
"""Time between SIGTERM and SIGKILL."""
CLOSE_S = 5.0
"""How long a worker that leaves waits for its killed children to be gone."""
TASK_OUTPUT_BYTES = 1 << 20
"""What is sent of one task's output; the rest is dropped, with a notice."""
UNSENT_OUTPUT_BYTES = 4 << 20
"""What tasks print while there is no connection is kept up to so much."""
CACHE_BYTES = 1 << 30
"""Bytes of unpacked code that are kept on a machine for one user."""
PROCESSES = 1_000
"""Processes that a worker runs beside its slots at most, unless told otherwise."""
UNSETTLED_BYTES = 64 << 20
"""Outcomes not settled yet, above which no more tasks are asked for."""
QUICK_RESPAWNS = 2
"""Children that may die in a row, before they have done anything, and are replaced at once."""
LEND_S = 0.05
"""A task that waits so long for results of others lends its slot; so much longer for each lent."""
LENT_PER_SLOT = 8
"""Tasks that have lent their slots at once, for each slot of the worker at most."""
SPARE_S = 2.0
"""How long a child for which there is no slot any more is kept for the next that is lent."""
REFILL_S = 0.005
"""A child that was given away begins before the next one is started in its place."""
RESPAWN_S = 0.5
"""Pause before the next is started, times the number of such deaths."""
MAX_RESPAWN_S = 10.0
RESTART_S = 2.0
"""Pause before a child that could not be started is tried again."""


@dataclass(slots=True)
class WorkerOptions:
    """What a worker is started with."""

    urls: tuple[str, ...]
    """Addresses of the server, or of servers over the same store, tried in turn."""
    key: bytes = field(repr=False)
    trust: Trust = field(default_factory=Trust)
    """How the server is known to be the one that is meant."""
    seal: bytes | None = field(default=None, repr=False)
    """What submitters and workers sign with."""
    socket: str | None = None
    """The server's socket, if it runs on this machine."""
    tasks_key: bytes | None = field(default=None, repr=False)
    """Key of tasks that use multihost themselves; None: the worker's."""
    slots: int = 1
    name: str = ""
    """Empty: host and process id."""
    queues: tuple[str, ...] = ()
    """Empty: every queue."""
    tags: tuple[str, ...] = ()
    is_elastic: bool = False
    """Whether the server may ask for more slots."""
    first_path: tuple[str, ...] = ()
    """Directories that the children import from first."""
    sys_path: tuple[str, ...] = ()
    """The program's own, in its order: the children's comes behind."""
    cwd: str | None = None
    argv: tuple[str, ...] = ()
    """The children's ``sys.argv``."""
    grace_s: float = DRAIN_S
    cache: Path | None = None
    """Where to unpack what jobs ship; None: the user's cache directory."""
    cache_bytes: int = CACHE_BYTES
    """How much of that is kept."""
    processes: int = PROCESSES
    """Processes at most, beside the slots; 0: none are taken."""
    has_process: bool = False
    """Whether its process is its own: then it may be the parent of what tasks leave behind."""
    lends: bool = True
    """Whether a task that waits for results of others lends its slot meanwhile."""
    spool: Path | None = None
    """Below it, large arguments and results are kept in files; None: see ``worker.spool``."""

    @property
    def target(self) -> Target:
        """The server, as tasks see it that use multihost themselves."""
        key = self.tasks_key or self.key
        return Target(self.urls, key, self.trust, self.seal, self.socket)

    @property
    def offer(self) -> Offer:
        """What tasks may ask for that this worker has."""
        return Offer(
            ".".join(platform.python_version_tuple()[:2]),
            sockets.gethostname(),
            self.tags,
            float(os.cpu_count() or 1),
            processes=self.processes,
        )
