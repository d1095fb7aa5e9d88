"""The cost of a decision: measured, written down, and hardly more for a hundred thousand users than for one."""

import json
from pathlib import Path

import pytest

from tests.support.stack import meshyard


@pytest.mark.bench
@pytest.mark.timeout(300)
def test_the_cost_of_a_decision_grows_slowly(tmp_path: Path) -> None:
    file = tmp_path / "scheduler.json"
    done = meshyard("bench", "scheduler", "--json", str(file), timeout_seconds=280.0)
    assert done.returncode == 0, done.stderr
    figures = json.loads(file.read_text())
    assert figures["us_per_decision_1"] > 0
    assert figures["us_per_decision_1k"] > 0
    assert figures["us_per_decision_100k"] < 5 * figures["us_per_decision_1"]
    assert figures["bytes_per_queued_job"] <= 1024
    assert "us a decision" in done.stdout
