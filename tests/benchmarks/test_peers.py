"""The comparison itself: that it runs, loses nothing and writes the keys that others read."""

import json
import shutil
from pathlib import Path

import pytest

from tests.support.stack import meshyard


@pytest.mark.bench
@pytest.mark.timeout(900)
@pytest.mark.skipif(shutil.which("redis-server") is None, reason="no redis-server")
def test_a_small_run_tells_how_all_compare(tmp_path: Path) -> None:
    file = tmp_path / "peers.json"
    done = meshyard("bench", "peers", "--jobs", "60", "--low-seconds", "2", "--json", str(file), timeout_seconds=600.0)
    assert done.returncode == 0, done.stderr
    figures = json.loads(file.read_text())
    for key in ("cpu_ratio_to_celery", "p50_ratio_to_celery", "jobs_per_cpu_s", "celery_jobs_per_cpu_s"):
        assert figures[key] > 0
    assert set(figures["peers"]) == {"celery", "dramatiq"}
    for one in (figures["meshyard"], figures["meshyard_http"], *figures["peers"].values()):
        assert one["lost"] == 0
        assert 0 < one["p50_ms"] <= one["p95_ms"] <= one["p99_ms"]
        assert {"worker", "broker", "submitter"} <= set(one["cpu_ms_per_job"])
