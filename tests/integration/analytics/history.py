"""A made-up history of jobs as events, and what the views must say about it, by another way than SQL."""

import random
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from schemas.codec import Record
from schemas.events import job_event
from schemas.jobs import TERMINAL_STATES, Rank, Transition, rank, state_after

STAGES = ("generate", "retopology", "texture")
START_MS = 1_780_000_000_000
PRICES = {"gpu": 0.000694, "cpu": 0.0000139}


@dataclass
class Expected:
    """What distinct events say, the first of each counting.

    attempts: (job, stage, attempt) -> (outcome, wait, run, gpu seconds, pool, resource class); jobs: job -> (state,
    seconds from creation to end); orders: job -> (lane, tier, adjustments, retry_of); times: job -> when it was held,
    queued and started; events: id -> transition.
    """

    attempts: dict[tuple[str, str, int], tuple[Any, ...]] = field(default_factory=dict)
    jobs: dict[str, tuple[str, float | None]] = field(default_factory=dict)
    orders: dict[str, tuple[str, str, list[str], str]] = field(default_factory=dict)
    times: dict[str, dict[str, int]] = field(default_factory=dict)
    events: dict[str, str] = field(default_factory=dict)
    _ranks: dict[str, Rank] = field(default_factory=dict)

    def add(self, event: Record) -> None:
        """Folds one event in, in the log's order."""
        if event["event_id"] in self.events:
            return
        self.events[event["event_id"]] = event["transition"]
        key = (event["job_id"], event["stage"] or "", event["attempt"])
        kind = event["transition"]
        if kind == "started":
            self.attempts.setdefault(key, ("", 0.0, 0.0, 0.0, event["pool"], event["resource_class"]))
        elif kind.startswith("stage_"):
            figures = (event["wait_seconds"] or 0.0, event["run_seconds"] or 0.0, event["gpu_seconds"] or 0.0)
            if self.attempts.get(key, ("",))[0] == "":
                self.attempts[key] = (kind, *figures, event["pool"], event["resource_class"])
        self._add_to_job(event)

    def _add_to_job(self, event: Record) -> None:
        job_id, transition = event["job_id"], Transition(event["transition"])
        self.times.setdefault(job_id, {}).setdefault(transition.value, event["at"])
        self.orders[job_id] = (event["lane"], event["tier"], event["adjustments"], event["retry_of"] or "")
        found = rank(transition, event["stage_index"], event["attempt"])
        if job_id in self._ranks and found <= self._ranks[job_id]:
            return
        self._ranks[job_id] = found
        state, seconds = state_after(transition), None
        if state in TERMINAL_STATES:
            seconds = (self.times[job_id][transition.value] - event["created_at"]) / 1000
        self.jobs[job_id] = (state.value, seconds)

    def transitions(self) -> dict[str, int]:
        """Distinct events of each kind."""
        found: dict[str, int] = {}
        for kind in self.events.values():
            found[kind] = found.get(kind, 0) + 1
        return found

    def cost_usd(self) -> float:
        """Of all attempts."""
        return float(sum(each[3] * PRICES[each[5]] for each in self.attempts.values()))


def job_history(rng: random.Random) -> Iterator[Record]:
    """Events of one job in their order; some are told twice, some jobs do not end."""
    job: dict[str, Any] = {
        "job_id": str(uuid.UUID(int=rng.getrandbits(128))),
        "user_id": f"user-{rng.randrange(20)}",
        "workflow": "text-to-3d",
        "pipeline_id": "synthetic",
        "created_at": START_MS + rng.randrange(3_600_000),
        "traceparent": None,
        "lane": rng.choice(["interactive", "standard", "batch"]),
        "tier": rng.choice(["free", "pro", "enterprise"]),
        "priority": rng.randrange(1, 6),
        "retry_of": rng.choice([None, None, None, "job-0"]),
        "adjustments": sorted(rng.sample(["quality high -> draft", "texture 8192 -> 2048"], rng.choice([0, 0, 1, 2]))),
    }
    events = list(_before_start(rng, job))
    if events[-1]["transition"] == "queued":
        events += _stages(rng, job, events[-1]["at"])
    for event in events:
        yield event
        if rng.random() < 0.1:
            yield {**event, "at": event["at"] + 1}  # told again by somebody else, a little later


def _before_start(rng: random.Random, job: dict[str, Any]) -> Iterator[Record]:
    """Refused, held, and queued in the end: most of them at once, some never."""
    now = job["created_at"] + 5
    if rng.random() < 0.1:
        yield job_event(job, Transition.REJECTED, at=now, stage_count=3, error_class="rate_limit")
        if rng.random() < 0.5:
            return
        now += 1000
    if rng.random() < 0.2:
        yield job_event(job, Transition.HELD, at=now, stage_count=3, due_at=now + 2000)
        now += 2000
        end = rng.choice([None, None, Transition.REJECTED, Transition.CANCELED, Transition.ABORTED])
        if end is not None:
            yield job_event(job, end, at=now, stage_count=3, attempt=1 if end is Transition.REJECTED else 0)
            return
        if rng.random() < 0.3:
            return
    yield job_event(job, Transition.QUEUED, at=now, stage_count=3)
    if rng.random() < 0.05:
        yield job_event(job, Transition.ABORTED, at=now + 60_000, stage_count=3, error_class="start_deadline")


def _stages(rng: random.Random, job: dict[str, Any], now: int) -> Iterator[Record]:
    """Three stages, the failed ones again, and perhaps the end."""
    where: dict[str, str] = rng.choice(
        [{"pool": "default", "resource_class": "gpu"}, {"pool": "cpus", "resource_class": "cpu"}]
    )
    for index, stage in enumerate(STAGES):
        for attempt in (1, 2, 3):
            common: dict[str, Any] = {
                "stage": stage,
                "stage_index": index,
                "stage_count": 3,
                "attempt": attempt,
                "slot": 3,
                **where,
            }
            wait, run = rng.randrange(100) / 8, rng.randrange(100) / 8
            now += int(wait * 1000)
            yield job_event(job, Transition.STARTED, at=now, **common)
            now += int(run * 1000)
            fails = attempt < 3 and rng.random() < 0.2
            figures: dict[str, Any] = {"wait_seconds": wait, "run_seconds": run, "gpu_seconds": run}
            if fails and rng.random() < 0.5:
                yield job_event(job, Transition.STAGE_LOST, at=now, **common)
            elif fails:
                figures |= {"error_class": "transient", "due_at": now + 250}
                yield job_event(job, Transition.STAGE_FAILED, at=now, **common, **figures)
            else:
                yield job_event(job, Transition.STAGE_SUCCEEDED, at=now, **common, **figures)
                break
    end = rng.choice([Transition.SUCCEEDED, Transition.SUCCEEDED, Transition.FAILED, None])
    if end is not None:
        yield job_event(job, end, at=now + 3, stage_index=2, stage_count=3, attempt=1)
