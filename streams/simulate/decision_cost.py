"""What a decision costs: the scheduler's fold timed on queues of 1, 1,000 and 100,000 users.

One decision is what the end of a task brings about: its entry is folded, its job's next task waits again or the job is
forgotten, and the free slot gets the next task in order. Inbox records hold many entries, as they do under load. The
fold is the product's own; nothing is sent.
"""

import gc
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import psutil

from schemas.codec import Codec
from schemas.pipelines import PIPELINES
from streams.collector import spare_the_old
from streams.policy.decisions import Decision, Dispatch
from streams.policy.scheduler import Scheduler
from streams.simulate.traffic import job_id

PIPELINE: Final = "synthetic"
STAGES: Final = tuple(stage.name for stage in PIPELINES[PIPELINE].stages)
SLOTS: Final = 1_000
ENTRIES_PER_RECORD: Final = 100
DECISIONS: Final = 20_000
SIZES: Final = ((1, 50_000), (1_000, 50), (100_000, 2))
"""Users, and jobs that each of them has waiting."""
_NOW_MS: Final = 1_000_000


@dataclass
class _Bench:
    """A scheduler with a backlog, and what runs on its slots."""

    scheduler: Scheduler
    running: list[Dispatch]
    offset: int = 0
    now: int = _NOW_MS

    def apply(self, entries: list[dict[str, Any]]) -> list[Decision]:
        """Folds one record."""
        self.offset += 1
        return self.scheduler.apply(self.offset - 1, {"entries": entries})


def measure(tell: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """All sizes. Times are medians over records, in microseconds of CPU: what others do on the machine does not count.

    bytes_per_queued_job is that of 1,000 users; bytes_per_user: what 100,000 users with little to do add for each.
    """
    request = _request()
    sizes = []
    for users, jobs_each in SIZES:
        tell(f"{users:,} users")
        sizes.append(_size(users, jobs_each, request))
    figures = {name: size["us_per_decision"] for name, size in zip(("1", "1k", "100k"), sizes, strict=True)}
    return {
        **{f"us_per_decision_{name}": value for name, value in figures.items()},
        "bytes_per_queued_job": sizes[1]["bytes_per_queued_job"],
        "bytes_per_user": round(
            (sizes[2]["bytes_per_queued_job"] - sizes[1]["bytes_per_queued_job"])
            * sizes[2]["queued_jobs"]
            / SIZES[2][0]
        ),
        "request_bytes": len(request),
        "growth_per_doubling_us": round((figures["100k"] - figures["1"]) / math.log2(SIZES[-1][0]), 3),
        "sizes": sizes,
    }


def _size(users: int, jobs_each: int, request: bytes) -> dict[str, Any]:
    gc.collect()
    bench = _Bench(scheduler=Scheduler(), running=[])
    _join(bench)
    before = psutil.Process().memory_info().rss
    arrival_us = _fill(bench, users, jobs_each, request)
    gc.collect()
    queued = bench.scheduler.queued_tasks
    grown = psutil.Process().memory_info().rss - before
    thresholds = gc.get_threshold()
    spare_the_old()  # as the scheduler's process does once it runs
    try:
        decision_us, dispatch_us = _decide(bench)
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)
    return {
        "users": users,
        "queued_jobs": queued,
        "us_per_decision": round(decision_us, 2),
        "us_per_dispatch": round(dispatch_us, 2),
        "us_per_arrival": round(arrival_us, 2),
        "bytes_per_queued_job": round(grown / queued, 1),
    }


def _join(bench: _Bench) -> None:
    serves = [f"{PIPELINE}/{stage}" for stage in STAGES]
    bench.apply(
        [
            {
                "kind": "slot_joined",
                "at": bench.now,
                "slot": {
                    "slot": number, "epoch": 1, "pool": "default", "resource_class": "gpu", "serves": serves,
                    "versions": [], "capacity": 1,
                },
            }
            for number in range(SLOTS)
        ]
    )  # fmt: skip


def _fill(bench: _Bench, users: int, jobs_each: int, request: bytes) -> float:
    """Every user's jobs arrive; the median cost of an arrival."""
    bench.apply([_tenant(f"user-{number}", bench.now) for number in range(users)])
    times = []
    number = 0
    ready: list[dict[str, Any]] = []
    for _ in range(jobs_each):
        for user in range(users):
            ready.append(_ready(number, f"user-{user}", request, bench.now))
            number += 1
            if len(ready) == ENTRIES_PER_RECORD:
                began = time.thread_time()
                decisions = bench.apply(ready)
                times.append((time.thread_time() - began) / len(ready))
                bench.running.extend(d for d in decisions if isinstance(d, Dispatch))
                ready = []
    bench.running.extend(d for d in bench.apply(ready) if isinstance(d, Dispatch))
    return _median(times[len(times) // 2 :]) * 1e6


def _decide(bench: _Bench) -> tuple[float, float]:
    """(decision, its dispatching part) in microseconds: tasks end in the order in which they began."""
    whole, dispatching = [], []
    for _ in range(DECISIONS // ENTRIES_PER_RECORD):
        bench.now += 50
        ended, bench.running = bench.running[:ENTRIES_PER_RECORD], bench.running[ENTRIES_PER_RECORD:]
        entries = [_settled(dispatch, bench.now) for dispatch in ended]
        began = time.thread_time()
        decisions = bench.apply(entries)
        seconds = time.thread_time() - began
        started = [d for d in decisions if isinstance(d, Dispatch)]
        bench.running.extend(started)
        if started:
            whole.append(seconds / len(started))
    # The dispatching part alone: slots that join get work, and nothing has ended.
    for number in range(DECISIONS // ENTRIES_PER_RECORD // 4):
        first = SLOTS + number * ENTRIES_PER_RECORD
        entries = [
            {
                "kind": "slot_joined",
                "at": bench.now,
                "slot": {
                    "slot": first + k, "epoch": 1, "pool": "default", "resource_class": "gpu",
                    "serves": [f"{PIPELINE}/{stage}" for stage in STAGES], "versions": [], "capacity": 1,
                },
            }
            for k in range(ENTRIES_PER_RECORD)
        ]  # fmt: skip
        began = time.thread_time()
        started = [d for d in bench.apply(entries) if isinstance(d, Dispatch)]
        if started:
            dispatching.append((time.thread_time() - began) / len(started))
    return _median(whole) * 1e6, _median(dispatching) * 1e6


def _tenant(user_id: str, at: int) -> dict[str, Any]:
    share = {"user_id": user_id, "tier": "enterprise", "weight": 1.0, "max_running": 1_000_000}
    return {"kind": "tenant_changed", "at": at, "tenant": share}


def _ready(number: int, user_id: str, request: bytes, at: int) -> dict[str, Any]:
    ready: dict[str, Any] = {
        "job_id": job_id(number), "user_id": user_id, "pipeline_id": PIPELINE, "stage": STAGES[number % len(STAGES)],
        "tier": "enterprise", "model_version": None, "quality": "standard", "texture_size": None,
        "lane": ("interactive", "standard", "batch")[number % 3], "priority": 3, "artefacts": [], "start_by": None,
        "finish_by": None, "max_queue_depth": None, "retry_of": None, "traceparent": None, "created_at": at,
        # A copy: each request that came has its own bytes.
        "request": bytes(bytearray(request)),
    }  # fmt: skip
    return {"kind": "stage_ready", "at": at, "ready": ready}


def _settled(dispatch: Dispatch, at: int) -> dict[str, Any]:
    item = dispatch.item
    seconds = 0.5 + (dispatch.slot % 100) / 50
    settled = {
        "job_id": item["job_id"], "stage": item["stage"], "attempt": item["attempt"], "slot": dispatch.slot,
        "epoch": dispatch.epoch, "outcome": "succeeded", "error_class": None, "gpu_seconds": seconds, "artefacts": [],
        "retry_after_seconds": None, "run_seconds": seconds,
    }  # fmt: skip
    return {"kind": "stage_settled", "at": at, "settled": settled}


def _request() -> bytes:
    """A request as it comes over Kafka, of usual length."""
    request = {
        "request_id": "72b1f3de-0f7c-4a68-8d0e-95c5a6f1b2ab", "job_id": job_id(1), "user_id": "user-12345",
        "tier": "enterprise", "job_type": "model", "created_at": _NOW_MS, "workflow": "text-to-3d",
        "pipeline_id": PIPELINE, "model_version": None, "prompt": "a low-poly wooden treasure chest with iron bands",
        "seed": 123_456, "quality": "standard", "formats": ["glb"], "parameters": {"seconds": "1.5"},
        "traceparent": None, "lane": "standard", "priority": 3, "texture_size": None, "run_at": None,
        "on_limit": "reject", "debounce_key": None, "debounce_seconds": None, "start_within_seconds": None,
        "finish_within_seconds": None, "max_queue_depth": None, "key_id": "1a2b3c4d", "retry_of": None, "resume": None,
    }  # fmt: skip
    return Codec().encode("job_requested", request)


def _median(values: list[float]) -> float:
    ordered = sorted(values)
    return ordered[len(ordered) // 2] if ordered else math.nan
