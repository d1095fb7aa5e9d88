"""`meshyard load` on a real topic."""

import json
import time
import uuid
from typing import Any

import pytest

from gateway.cli.load import duration, headlines
from schemas.codec import Codec
from schemas.topics import LOAD
from streams.kafka.settings import KafkaSettings
from tests.integration.cli.conftest import Run
from tests.support.kafka import produce


def report(domain: str, **changes: Any) -> dict[str, Any]:
    lane = {
        "lane": "interactive",
        "weight": 70.0,
        "virtual_time": 5.0,
        "queued_tasks": 3,
        "running_tasks": 2,
        "queued_gpu_seconds": 30.0,
        "oldest_age_seconds": 12.0,
        "gpu_seconds_per_second": 2.0,
        "tag_edges": [5.0, 5.0],
        "tag_gpu_seconds": [30.0],
        "rest_seconds": 4.0,
        "wait_ratio_p50": 1.0,
        "wait_ratio_p90": 2.0,
        "total_ratio_p50": 1.0,
        "total_ratio_p90": 2.0,
    }
    return {
        "domain": domain,
        "virtual_time": 1.0,
        "queued_tasks": 3,
        "running_tasks": 2,
        "live_slots": 2,
        "queued_gpu_seconds": 30.0,
        "backlog": [],
        "at": int(time.time() * 1000),
        "level": 0,
        "level_since": None,
        "predicted_wait_seconds": 15.0,
        "oldest_age_seconds": 12.0,
        "retry_after_seconds": 0.0,
        "capacity": 2,
        "lanes": [lane, {**lane, "lane": "standard", "weight": 30.0, "gpu_seconds_per_second": 0.0}],
        "refused_tiers": [],
        "refused_lanes": [],
        "policy_digest": "",
        **changes,
    }


@pytest.fixture
def domain(settings: KafkaSettings, codec: Codec) -> str:
    """A domain whose newest report says level 3."""
    name = f"load-{uuid.uuid4().hex[:8]}"
    overloaded = report(name, level=3, level_since=1, refused_tiers=["free"], retry_after_seconds=120.0)
    records = [(name, codec.encode("domain_load", record)) for record in (report(name), overloaded)]
    produce(settings.bootstrap, LOAD, records)
    return name


def test_the_newest_report_is_shown(meshyard: Run, domain: str) -> None:
    code, out, _ = meshyard("load", "--domain", domain)
    assert code == 0
    assert f"{domain}: load level 3 for " in out
    assert max(len(line.rstrip()) for line in out.splitlines() if "%" in line) <= 80
    assert "submissions are refused: tier free" in out
    assert "they may ask again in 120 s" in out
    interactive = next(line for line in out.splitlines() if "interactive" in line)
    assert "70%" in interactive
    assert "15.0s/" in interactive  # 30 GPU-seconds ahead at 2 a second
    standard = next(line for line in out.splitlines() if "standard" in line)
    assert standard.split()[-2:] == ["-", "-"]  # no rate, no promise


def test_json_is_the_record(meshyard: Run, domain: str) -> None:
    code, out, _ = meshyard("load", "--domain", domain, "--json")
    assert code == 0
    assert json.loads(out)["retry_after_seconds"] == 120


def test_without_a_report_it_says_so(meshyard: Run, domain: str) -> None:
    code, _, error = meshyard("load", "--domain", "nowhere")
    assert code == 1
    assert "no load report of domain nowhere yet" in error


def test_a_silent_scheduler_is_named() -> None:
    lines = headlines(report("main", at=1_000), 61_000)
    assert lines[0] == "main: load level 0, 60 s old: the scheduler is silent"


@pytest.mark.parametrize(("seconds", "text"), [(0.44, "0.4s"), (180, "3m"), (7560, "2.1h")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
