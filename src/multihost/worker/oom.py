"""Whether the kernel has killed for want of memory, as far as it tells."""

from pathlib import Path

_FILES = (
    Path("/sys/fs/cgroup/memory.events"),
    Path("/sys/fs/cgroup/memory/memory.oom_control"),
    Path("/proc/vmstat"),
)


class OutOfMemoryWatch:
    """Counts out-of-memory kills since it last looked."""

    def __init__(self) -> None:
        """Remember how many there have been."""
        self._seen = _kills()

    def has_struck(self) -> bool:
        """Whether the kernel has killed since the last call."""
        before, self._seen = self._seen, _kills()
        return self._seen > before


def _kills() -> int:
    total = 0
    for path in _FILES:
        try:
            lines = path.read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            name, _, value = line.partition(" ")
            if name == "oom_kill" and value.strip().isdecimal():
                total += int(value)
    return total
