"""Cold start: from nothing running to the first result, as ``cold.py ENTRANT`` in a new process."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from cluster import environment


def main(entrant: str) -> None:
    """Get one result with whatever has to be started for it, and say so."""
    if entrant == "managers":
        import queue_pair
        from work import tiny

        with queue_pair.running(tiny) as (tasks, results):
            assert queue_pair.put_and_get(tasks, results, [1]) == [2]
            print("done", flush=True)
        return
    from work import tiny

    if entrant == "ours":
        from multihost import Pool
    else:
        from multiprocessing import Pool  # type: ignore[assignment]
    with Pool(2) as pool:
        assert pool.apply(tiny, (1,)) == 2
        print("done", flush=True)


def cold(entrant: str) -> dict[str, float]:
    """Seconds from starting a program to its first result; and to that of an empty program."""
    return {
        "total_s": _until_line([sys.executable, __file__, entrant]),
        "python_s": _until_line([sys.executable, "-c", "print('done')"]),
    }


def _until_line(command: Sequence[str]) -> float:
    with tempfile.TemporaryDirectory(prefix="multihost-bench-") as home:
        began = time.perf_counter()
        process = subprocess.Popen(
            command, env=environment(Path(home)), stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        elapsed_s = time.perf_counter() - began
        process.stdout.close()
        if process.wait() != 0 or line != "done\n":
            raise RuntimeError(f"{command} ended with {process.returncode} and said {line!r}")
    return elapsed_s


if __name__ == "__main__":
    main(sys.argv[1])
