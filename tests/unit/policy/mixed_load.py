"""Mixed traffic through the real scheduler: what its load reports promise is tested on it.

It plays users, slots and the gateway's question: at each arrival it asks schemas.eta what the newest report promises.
"""

import heapq
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from schemas.eta import Predicted, predict_for
from schemas.jobs import TERMINAL_TRANSITIONS
from streams.policy.decisions import Decision, Dispatch, Report, Tell
from streams.policy.scheduler import Scheduler

LANES = ("interactive", "standard", "batch")
TIERS = ("free", "pro", "enterprise")
_SERVES = ["synthetic/generate", "synthetic/retopology", "synthetic/texture"]
_SIZES = {"draft": 0.3, "standard": 1.0, "high": 2.0}


@dataclass(kw_only=True)
class Job:
    """A job on its way. stages: seconds of each; promised: when it came, None while nothing was known."""

    job_id: str
    user_id: str
    lane: str
    tier: str
    quality: str
    came: float
    stages: list[float]
    promised: Predicted | None = None
    ended: float | None = None

    @property
    def total_seconds(self) -> float:
        """From coming to its end."""
        assert self.ended is not None
        return self.ended - self.came


@dataclass
class MixedLoad:
    """The scheduler and everything around it, by a clock of its own."""

    scheduler: Scheduler = field(default_factory=Scheduler)
    jobs: dict[str, Job] = field(default_factory=dict)
    report: dict[str, Any] | None = None
    levels: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._events: list[tuple[float, int, str, Any]] = []
        self._waiting: Counter[tuple[str, str]] = Counter()
        self._epochs: dict[int, int] = {}
        self._busy: dict[int, Dispatch] = {}
        self._count = 0
        self._offset = 0

    def join(self, at: float, slots: Iterable[int]) -> None:
        """Slots come up."""
        for slot in slots:
            self._at(at, "join", slot)

    def lose(self, at: float, slots: Iterable[int]) -> None:
        """Slots are lost with what they run."""
        for slot in slots:
            self._at(at, "lose", slot)

    def run(self, arrivals: Iterable[Job], until: float) -> None:
        """Until all is done."""
        for job in arrivals:
            self._at(job.came, "come", job)
        for second in range(int(until)):
            self._at(second + 0.5, "tick", None)
        while self._events:
            now, _, kind, what = heapq.heappop(self._events)
            getattr(self, f"_{kind}")(now, what)

    def judged(self) -> list[Job]:
        """Jobs that ended and had a promise."""
        return [job for job in self.jobs.values() if job.ended is not None and job.promised is not None]

    def _at(self, when: float, kind: str, what: Any) -> None:
        self._count += 1
        heapq.heappush(self._events, (when, self._count, kind, what))

    def _feed(self, now: float, entry: dict[str, Any]) -> None:
        record = {"entries": [{"at": int(now * 1000), **entry}]}
        for decision in self.scheduler.apply(self._offset, record):
            self._carry_out(now, decision)
        self._offset += 1

    def _carry_out(self, now: float, decision: Decision) -> None:
        if isinstance(decision, Report):
            self.report = decision.load
            self.levels.append(decision.load["level"])
        elif isinstance(decision, Dispatch):
            job = self.jobs[decision.item["job_id"]]
            self._waiting[job.user_id, job.lane] -= 1
            self._busy[decision.slot] = decision
            self._at(now + job.stages[decision.item["stage_index"]], "settle", decision)
        elif isinstance(decision, Tell) and decision.event["transition"] in TERMINAL_TRANSITIONS:
            raise AssertionError(f"no job fails here: {decision.event}")

    def _come(self, now: float, job: Job) -> None:
        before = self._waiting[job.user_id, job.lane]
        if self.report is not None:
            job.promised = predict_for(self.report, job.lane, job.user_id, jobs_before=before)
        self.jobs[job.job_id] = job
        self._waiting[job.user_id, job.lane] += 1
        ready: dict[str, Any] = {
            "job_id": job.job_id, "user_id": job.user_id, "pipeline_id": "synthetic", "stage": "generate",
            "tier": job.tier, "model_version": None, "quality": job.quality, "texture_size": None, "lane": job.lane,
            "priority": 3, "artefacts": [], "start_by": None, "finish_by": None, "max_queue_depth": None,
            "retry_of": None, "traceparent": None, "created_at": int(now * 1000), "request": b"",
        }  # fmt: skip
        self._feed(now, {"kind": "stage_ready", "ready": ready})

    def _tick(self, now: float, _: None) -> None:
        self._feed(now, {"kind": "tick"})

    def _join(self, now: float, slot: int) -> None:
        self._epochs[slot] = int(now * 1000) + 1
        self._feed(now, {"kind": "slot_joined", "slot": self._change(slot)})

    def _lose(self, now: float, slot: int) -> None:
        lost = self._busy.pop(slot, None)
        if lost is not None:
            job = self.jobs[lost.item["job_id"]]
            self._waiting[job.user_id, job.lane] += 1
        self._feed(now, {"kind": "slot_lost", "slot": self._change(slot)})

    def _change(self, slot: int) -> dict[str, Any]:
        return {
            "slot": slot, "epoch": self._epochs[slot], "pool": "main", "resource_class": "cpu", "serves": _SERVES,
            "versions": [], "capacity": 1,
        }  # fmt: skip

    def _settle(self, now: float, dispatch: Dispatch) -> None:
        if self._busy.get(dispatch.slot) is not dispatch:
            return  # lost meanwhile
        del self._busy[dispatch.slot]
        item = dispatch.item
        job = self.jobs[item["job_id"]]
        seconds = job.stages[item["stage_index"]]
        if item["stage_index"] + 1 == len(job.stages):
            job.ended = now
        else:
            self._waiting[job.user_id, job.lane] += 1
        settled = {
            "job_id": job.job_id, "stage": item["stage"], "attempt": item["attempt"], "slot": dispatch.slot,
            "epoch": dispatch.epoch, "outcome": "succeeded", "error_class": None, "gpu_seconds": seconds,
            "artefacts": [], "retry_after_seconds": None, "run_seconds": seconds,
        }  # fmt: skip
        self._feed(now, {"kind": "stage_settled", "settled": settled})


def traffic(
    seed: int, phases: Iterable[tuple[float, float]], *, users: int = 20, mean_seconds: float = 1.0
) -> Iterator[Job]:
    """Poisson arrivals of three-stage jobs of Zipf users of all tiers, over all lanes and qualities.

    phases: (seconds, jobs a second); a job takes 1.1 x mean_seconds in the mean.
    """
    draw = random.Random(seed)
    popularity = [1 / (rank + 1) for rank in range(users)]
    now, number = 0.0, 0
    for seconds, rate in phases:
        end = now + seconds
        while (now := now + draw.expovariate(rate)) < end:
            number += 1
            user = draw.choices(range(users), popularity)[0]
            quality = draw.choice(list(_SIZES))
            size = mean_seconds * _SIZES[quality]
            yield Job(
                job_id=f"job-{number}",
                user_id=f"user-{user}",
                lane=draw.choices(LANES, [3, 6, 1])[0],
                tier=TIERS[user % 3],
                quality=quality,
                came=now,
                stages=[size * share * draw.uniform(0.7, 1.3) for share in (0.3, 0.2, 0.5)],
            )
        now = end
