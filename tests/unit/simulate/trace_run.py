"""Runs a trace of the fairness benchmark in the simulator, and tells the same events as a live run."""

from collections.abc import Iterator
from typing import Any

from gateway.bench.served import Served, read_events
from gateway.bench.trace import Trace, TraceJob
from schemas.pipelines import PIPELINES
from streams.policy.config import DEFAULT, Policy
from streams.policy.scheduler import Scheduler
from streams.simulate.engine import Entry, Outcome, Simulation, Timed
from streams.simulate.generated import policy_entry
from streams.simulate.ledger import Ledger
from streams.simulate.traffic import job_id, job_number

START_MS = 1_000
STAGES = [stage.name for stage in PIPELINES["synthetic"].stages]


class TraceLedger(Ledger):
    """Writes down what a live run would tell on jobs.events."""

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self.events: list[dict[str, Any]] = []
        self._jobs = all_jobs(trace)

    def arrived(self, ready: dict[str, Any], at: int) -> None:
        super().arrived(ready, at)
        self._event({**ready, "stage": None, "attempt": 0, "stage_index": 0, "stage_count": 3}, "queued", at, None)

    def started(self, item: dict[str, Any], at: int, gpu_seconds: float) -> None:
        super().started(item, at, gpu_seconds)
        self._event(item, "started", at, None)

    def settled(self, item: dict[str, Any], at: int, gpu_seconds: float) -> None:
        super().settled(item, at, gpu_seconds)
        self._event(item, "stage_succeeded", at, gpu_seconds)

    def ended(self, job_id: str, how: str, at: int) -> None:
        super().ended(job_id, how, at)
        self.events.append(
            {
                "event_id": f"{job_id}/{how}", "job_id": job_id, "user_id": self._jobs[job_number(job_id)].user,
                "transition": how, "at": at, "created_at": at, "stage": None, "attempt": 0, "gpu_seconds": None,
            }
        )  # fmt: skip

    def _event(self, item: dict[str, Any], transition: str, at: int, gpu_seconds: float | None) -> None:
        self.events.append(
            {
                "event_id": f"{item['job_id']}/{item['stage']}/{item['attempt']}/{transition}",
                "job_id": item["job_id"],
                "user_id": item["user_id"],
                "transition": transition,
                "at": at,
                "created_at": item["created_at"],
                "stage": item["stage"],
                "attempt": item["attempt"],
                "stage_index": item["stage_index"],
                "stage_count": item["stage_count"],
                "gpu_seconds": gpu_seconds,
            }
        )


class TraceWork:
    """Every stage of a job takes what its trace says, and a little more on the way."""

    def __init__(self, trace: Trace, overhead_ms: int = 10) -> None:
        self._costs = {job_id(number): job.cost_seconds for number, job in enumerate(all_jobs(trace))}
        self._overhead_ms = overhead_ms

    def outcome(self, item: Entry) -> Outcome:
        """See Work."""
        cost = self._costs[item["job_id"]]
        return Outcome(held_ms=round(1000 * cost) + self._overhead_ms, gpu_seconds=cost)


def run_trace(trace: Trace, slots: int, policy: Policy = DEFAULT) -> Served:
    """The trace on so many slots, to its end."""
    ledger = TraceLedger(trace)
    simulation = Simulation(Scheduler("main"), TraceWork(trace), ledger, start_ms=START_MS)
    tenants = [
        {
            "kind": "tenant_changed",
            "at": START_MS,
            "tenant": {"user_id": user.name, "tier": "enterprise", "weight": user.weight, "max_running": None},
        }
        for user in trace.users
    ]
    simulation.append([policy_entry(policy, START_MS), *tenants])
    simulation.append([_slot(number, simulation) for number in range(slots)])
    simulation.run(_arrivals(trace.before, 0, START_MS))
    ledger.events.clear()
    simulation.run(_arrivals(trace.jobs, len(trace.before), simulation.now_ms))
    return read_events(ledger.events)


def _slot(number: int, simulation: Simulation) -> Entry:
    simulation.know_slot(number, 1)
    change = {
        "slot": number, "epoch": 1, "pool": "synthetic", "resource_class": "cpu", "capacity": 1, "versions": [],
        "serves": [f"synthetic/{stage}" for stage in STAGES],
    }  # fmt: skip
    return {"kind": "slot_joined", "at": START_MS, "slot": change}


def all_jobs(trace: Trace) -> tuple[TraceJob, ...]:
    """Those before the trace, then its own; a job's place is its number."""
    return (*trace.before, *trace.jobs)


def _arrivals(jobs: tuple[TraceJob, ...], first: int, start_ms: int) -> Iterator[Timed]:
    for number, job in enumerate(jobs, first):
        at = start_ms + round(1000 * job.at_seconds)
        ready: dict[str, Any] = {
            "job_id": job_id(number), "user_id": job.user, "pipeline_id": "synthetic", "stage": STAGES[0],
            "tier": "enterprise", "model_version": None, "quality": "standard", "texture_size": None,
            "lane": "standard", "priority": 3, "artefacts": [], "start_by": None, "finish_by": None,
            "max_queue_depth": None, "retry_of": None, "traceparent": None, "created_at": at, "request": b"",
        }  # fmt: skip
        yield at, {"kind": "stage_ready", "at": at, "ready": ready}
