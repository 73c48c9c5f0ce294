"""The benchmark runs; what it measures is no test's business."""

import json
import subprocess
import sys
from pathlib import Path

RUN = Path(__file__).parent.parent / "bench" / "run.py"


def test_the_benchmark_measures_ours_beside_the_standard_pool(tmp_path):
    values = tmp_path / "bench.json"
    command = [sys.executable, str(RUN), "--quick", "--only", "imap", "--json", str(values)]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=50, check=True).stdout
    assert "Pool.imap" in shown
    measured = json.loads(values.read_text())["figures"]["imap"]
    assert measured["ours"]["median"] > 0
    assert measured["pool"]["median"] > 0
