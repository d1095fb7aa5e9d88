"""The no-op benchmark itself: that it runs, loses nothing and writes the keys that others read."""

import json
from pathlib import Path

import pytest

from tests.support.stack import meshyard

KEYS = {
    "jobs": int,
    "slots": int,
    "jobs_per_s": float,
    "jobs_per_cpu_s": float,
    "p50_ms": float,
    "p95_ms": float,
    "p99_ms": float,
    "cpu_ms_per_job": dict,
    "cpu_cores": float,
    "other_cores": float,
    "lost": int,
    "repeated": int,
    "not_succeeded": int,
}
ROLES = {"submitter", "gateway", "streams", "worker", "sink", "clickhouse", "broker", "supervisor"}


@pytest.mark.bench
@pytest.mark.timeout(400)
def test_a_small_run_loses_nothing_and_tells_every_figure(tmp_path: Path) -> None:
    file = tmp_path / "noop.json"
    done = meshyard("bench", "noop", "--jobs", "60", "--low-seconds", "2", "--json", str(file), timeout_seconds=300.0)
    assert done.returncode == 0, done.stderr
    figures = json.loads(file.read_text())
    assert {name: type(figures[name]) for name in KEYS} == KEYS
    assert (figures["lost"], figures["not_succeeded"], figures["jobs"], figures["slots"]) == (0, 0, 60, 4)
    assert set(figures["cpu_ms_per_job"]) == ROLES
    assert 0 < figures["p50_ms"] <= figures["p95_ms"] <= figures["p99_ms"]
    assert figures["low"]["rate"] == 20
    assert "jobs per CPU-second" in done.stdout
