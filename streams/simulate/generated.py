"""`meshyard simulate --generate`: made traffic through the scheduler."""

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from streams.policy.config import LANES, Policy, digest, dump_policy
from streams.policy.scheduler import Scheduler
from streams.simulate.engine import Entry, Simulation
from streams.simulate.ledger import Ledger
from streams.simulate.measures import Fairness, FairnessMeter
from streams.simulate.spec import Spec
from streams.simulate.traffic import START_MS, MadeWork, arrivals, background, job_number, slots, tenants, user_ids

MOST_METERED = 64
BINS = 120


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run is. of_jobs: None when the specification gives a duration."""

    simulated_seconds: float
    jobs: int
    of_jobs: int | None
    queued: int
    of_seconds: float | None


@dataclass(frozen=True, kw_only=True)
class Run:
    """A simulation that has ended.

    utilisation: busy slot-seconds over all slot-seconds until the last job's end; peak_bytes: by how much the process
    had grown when most jobs waited; bytes_per_queued_job: that for each of them, everything included; fairness: by
    lane, of few users only.
    """

    spec: Spec
    ledger: Ledger
    simulated_seconds: float
    wall_seconds: float
    cpu_seconds: float
    records: int
    dispatches: int
    peak_queued: int
    peak_bytes: int
    bytes_per_queued_job: float | None
    utilisation: float
    fairness: dict[str, Fairness]
    left: int


def policy_entry(policy: Policy, at: int) -> Entry:
    """The inbox entry from which on a policy holds."""
    return {"kind": "policy_changed", "at": at, "policy": {"digest": digest(policy), "body": dump_policy(policy)}}


def simulate(spec: Spec, tell: Callable[[Progress], None] = lambda _: None) -> Run:
    """Runs a specification until all its jobs have ended. Deterministic, but for the times and bytes it took."""
    gc.collect()
    before = psutil.Process().memory_info().rss
    began, cpu_began = time.perf_counter(), time.process_time()
    ledger = Ledger(bin_ms=_bin_ms(spec), number_of=job_number, meters=_meters(spec))
    simulation = Simulation(Scheduler(), MadeWork(spec), ledger, start_ms=START_MS)
    first = [policy_entry(spec.policy, START_MS), *tenants(spec)]
    simulation.append(first)
    for entry in slots(spec):
        simulation.know_slot(entry["slot"]["slot"], entry["slot"]["epoch"])
    simulation.append(slots(spec))

    def progress() -> None:
        tell(
            Progress(
                simulated_seconds=(simulation.now_ms - START_MS) / 1000,
                jobs=len(ledger),
                of_jobs=spec.jobs,
                queued=simulation.scheduler.queued_tasks,
                of_seconds=spec.duration_seconds,
            )
        )

    # What a simulation makes lives until it ends: the cycle collector would only search it again and again.
    gc.disable()
    try:
        simulation.run(arrivals(spec), background(spec), tell=progress)
    finally:
        gc.enable()
    if simulation.refused:
        raise RuntimeError(f"the scheduler refused what the simulator made: {simulation.refused[0]}")
    grown = max(0, simulation.peak_bytes - before)
    started, ended = ledger.span_ms()
    seconds = (ended - started) / 1000
    return Run(
        spec=spec,
        ledger=ledger,
        simulated_seconds=seconds,
        wall_seconds=time.perf_counter() - began,
        cpu_seconds=time.process_time() - cpu_began,
        records=simulation.records,
        dispatches=simulation.dispatches,
        peak_queued=simulation.peak_queued,
        peak_bytes=grown,
        bytes_per_queued_job=grown / simulation.peak_queued if simulation.peak_queued else None,
        utilisation=ledger.busy_seconds / (spec.capacity * seconds) if seconds else 0.0,
        fairness={lane: meter.figures(ended / 1000) for lane, meter in ledger.meters.items()},
        left=ledger.open,
    )


def _bin_ms(spec: Spec) -> int:
    """So that a plot has about 120 bins."""
    if spec.duration_seconds:
        return max(100, round(1000 * spec.duration_seconds / BINS))
    work = sum(spec.service_of(stage).mean_seconds for stage in spec.stages) * (spec.jobs or 1)
    return max(100, round(1000 * work / spec.capacity / BINS))


def _meters(spec: Spec) -> dict[str, FairnessMeter]:
    """One for each lane that at least two and not too many users use."""
    weights: dict[str, dict[str, float]] = {lane: {} for lane in LANES}
    for group in spec.users:
        for lane in group.lanes:
            for user_id in user_ids(group)[: MOST_METERED + 1]:
                weights[lane][user_id] = group.weight * spec.policy.tier(group.tier).weight
    return {
        lane: FairnessMeter(users, spec.capacity) for lane, users in weights.items() if 1 < len(users) <= MOST_METERED
    }
