"""The fairness benchmark itself: that a live run meets its goals' "must" and writes the keys that others read."""

import json
from pathlib import Path

import pytest

from tests.support.stack import meshyard


@pytest.mark.bench
@pytest.mark.timeout(600)
def test_a_live_run_is_fair(tmp_path: Path) -> None:
    file, picture = tmp_path / "fairness.json", tmp_path / "fairness.svg"
    done = meshyard("bench", "fairness", "--json", str(file), "--plot", str(picture), timeout_seconds=500.0)
    assert done.returncode == 0, done.stderr
    figures = json.loads(file.read_text())
    assert figures["lag_over_bound"] <= 1.0
    assert figures["jain"] >= 0.98
    assert figures["fcfs_ratio"] >= 0.95
    assert figures["rounds_to_first_start"] <= 2.0
    assert figures["flooded_neighbour_p99_ratio"] > 0
    assert picture.stat().st_size > 10_000
    assert "SFQ(D)" in done.stdout
