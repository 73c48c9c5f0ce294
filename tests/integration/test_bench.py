"""The benchmark runs; what it measures is no test's business."""

import json
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parent.parent / "bench"
RUN = BENCH / "run.py"


def test_the_benchmark_measures_ours_beside_the_standard_pool(tmp_path):
    values = tmp_path / "bench.json"
    command = [sys.executable, str(RUN), "--quick", "--only", "imap", "--json", str(values)]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=50, check=True).stdout
    assert "Pool.imap" in shown
    measured = json.loads(values.read_text())["figures"]["imap"]
    assert measured["ours"]["median"] > 0
    assert measured["pool"]["median"] > 0


def test_many_waiting_tasks_cost_little_memory_and_disk(tmp_path):
    """Two hundred thousand here, ten million in ``make bench``'s ``--only backlog``."""
    values = tmp_path / "backlog.json"
    command = [sys.executable, str(BENCH / "backlog.py"), "--no-rates"]
    command += ["--tasks", "200000", "--json", str(values)]
    subprocess.run(command, capture_output=True, timeout=50, check=True)
    figures = json.loads(values.read_text())
    assert figures["server_mib"] < 150
    assert figures["restarted_mib"] < 150
    assert figures["bytes_a_task"] < 100
    assert figures["log_mib"] <= 64
