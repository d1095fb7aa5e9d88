"""A made-up history of jobs as events, and what the views must say about it, by another way than SQL."""

import random
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from schemas.codec import Record
from schemas.events import job_event
from schemas.jobs import Transition

STAGES = ("generate", "retopology", "texture")
START_MS = 1_780_000_000_000
PRICES = {"gpu": 0.000694, "cpu": 0.0000139}


@dataclass
class Expected:
    """What distinct events say, the first of each counting.

    attempts: (job, stage, attempt) -> (outcome, wait, run, gpu seconds, pool, resource class); jobs: job -> (state,
    seconds from creation to end); transitions: distinct events of each kind.
    """

    attempts: dict[tuple[str, str, int], tuple[Any, ...]] = field(default_factory=dict)
    jobs: dict[str, tuple[str, float | None]] = field(default_factory=dict)
    events: dict[str, str] = field(default_factory=dict)

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
        elif kind in ("succeeded", "failed", "canceled"):
            seconds = (event["at"] - event["created_at"]) / 1000
            if self.jobs.get(event["job_id"], ("", None))[1] is None:
                self.jobs[event["job_id"]] = (kind, seconds)
        if event["job_id"] not in self.jobs or self.jobs[event["job_id"]][1] is None:
            if kind == "queued":
                self.jobs.setdefault(event["job_id"], ("queued", None))
            elif kind == "started":
                self.jobs[event["job_id"]] = ("running", None)

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
    }
    now = job["created_at"] + 5
    where: dict[str, str] = rng.choice(
        [{"pool": "default", "resource_class": "gpu"}, {"pool": "cpus", "resource_class": "cpu"}]
    )
    events = [job_event(job, Transition.QUEUED, at=now, stage_count=3)]
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
            events.append(job_event(job, Transition.STARTED, at=now, **common))
            now += int(run * 1000)
            fails = attempt < 3 and rng.random() < 0.2
            figures: dict[str, Any] = {"wait_seconds": wait, "run_seconds": run, "gpu_seconds": run}
            if fails and rng.random() < 0.5:
                events.append(job_event(job, Transition.STAGE_LOST, at=now, **common))
            elif fails:
                events.append(
                    job_event(job, Transition.STAGE_FAILED, at=now, error_class="transient", **common, **figures)
                )
            else:
                events.append(job_event(job, Transition.STAGE_SUCCEEDED, at=now, **common, **figures))
                break
    end = rng.choice([Transition.SUCCEEDED, Transition.SUCCEEDED, Transition.FAILED, None])
    if end is not None:
        events.append(job_event(job, end, at=now + 3, stage_index=2, stage_count=3, attempt=1))
    for event in events:
        yield event
        if rng.random() < 0.1:
            yield {**event, "at": event["at"] + 1}  # told again by somebody else, a little later
