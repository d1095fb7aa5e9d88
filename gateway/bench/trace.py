"""The traffic of the fairness benchmark: who sends what when. The same traces run live and in the simulator's test.

A job has three stages; each takes its user's cost. Users differ in weight by 1:10 and in cost by 1:20.
"""

import random
from dataclasses import dataclass
from typing import Final

STAGES: Final = 3
LEAST_COST_SECONDS: Final = 0.05
GREATEST_COST_SECONDS: Final = 1.0
LEAST_WEIGHT: Final = 1.0
GREATEST_WEIGHT: Final = 10.0
# What a task takes beside its cost: from its dispatch until its end is in the inbox. A floor, for planning alone.
OVERHEAD_SECONDS: Final = 0.02
BACKLOG_FACTOR: Final = 1.25


@dataclass(frozen=True, kw_only=True)
class TraceUser:
    """A user of a trace. cost_seconds: of each of a job's stages."""

    name: str
    weight: float
    cost_seconds: float


@dataclass(frozen=True, kw_only=True)
class TraceJob:
    """A job. at_seconds: after the trace's begin."""

    at_seconds: float
    user: str
    cost_seconds: float


@dataclass(frozen=True, kw_only=True)
class Trace:
    """Jobs in the order of time, and their users. seconds: how long it is meant to keep the slots busy; before: jobs
    that are sent and have ended before it begins, so that the scheduler knows what these users' tasks cost."""

    name: str
    users: tuple[TraceUser, ...]
    jobs: tuple[TraceJob, ...]
    seconds: float
    before: tuple[TraceJob, ...] = ()


def spread_users(count: int) -> tuple[TraceUser, ...]:
    """Users with weights from 1 to 10 and costs from 1 to 20 units, evenly spread; their pairing mixes light and heavy
    weights with small and large costs."""
    # A step coprime to the count visits every place of the other scale once.
    step = next(s for s in (7, 11, 13, 3, 1) if count % s)
    return tuple(
        TraceUser(
            name=f"u{k:02}",
            weight=round(_between(LEAST_WEIGHT, GREATEST_WEIGHT, k, count), 3),
            cost_seconds=round(_between(LEAST_COST_SECONDS, GREATEST_COST_SECONDS, (k * step) % count, count), 3),
        )
        for k in range(count)
    )


def backlogged(count: int, slots: int, seconds: float, *, idle: int = 0, known: bool = True) -> Trace:
    """All users keep a backlog for `seconds`: each sends at once what its share of the slots serves in that time, and a
    quarter more; the order of arrival is mixed.

    idle: so many further users, each of whom sends one job later, evenly spread over the middle of the time; known:
    whether each user but those has sent a job before.
    """
    users = spread_users(count)
    total = sum(user.weight for user in users)
    jobs = []
    for user in users:
        share = user.weight / total * slots * seconds / (STAGES * (user.cost_seconds + OVERHEAD_SECONDS))
        jobs += [
            TraceJob(at_seconds=0.0, user=user.name, cost_seconds=user.cost_seconds)
            for _ in range(round(BACKLOG_FACTOR * share) + 4)
        ]
    random.Random(count).shuffle(jobs)  # noqa: S311
    late = tuple(TraceUser(name=f"idle{k}", weight=LEAST_WEIGHT, cost_seconds=LEAST_COST_SECONDS) for k in range(idle))
    jobs += [
        TraceJob(
            at_seconds=seconds * (0.25 + 0.5 * (k + 1) / (idle + 1)), user=user.name, cost_seconds=user.cost_seconds
        )
        for k, user in enumerate(late)
    ]
    before = tuple(TraceJob(at_seconds=0.0, user=user.name, cost_seconds=user.cost_seconds) for user in users)
    return Trace(
        name=f"{'shares' if known else 'strangers'}-{count}",
        users=users + late,
        jobs=tuple(jobs),
        seconds=seconds,
        before=before if known else (),
    )


def neighbours(slots: int, seconds: float, *, flooded: bool) -> Trace:
    """Nine users who together use 40 % of the slots, at random times; `flooded`: beside one who sends at once what
    would fill all slots for the whole time."""
    users = tuple(TraceUser(name=f"n{k}", weight=1.0, cost_seconds=0.1) for k in range(9))
    rng = random.Random(9)  # noqa: S311
    jobs = []
    rate = 0.4 * slots / (STAGES * (0.1 + OVERHEAD_SECONDS))
    at = rng.expovariate(rate)
    while at < seconds:
        jobs.append(TraceJob(at_seconds=at, user=rng.choice(users).name, cost_seconds=0.1))
        at += rng.expovariate(rate)
    if flooded:
        flooder = TraceUser(name="flooder", weight=1.0, cost_seconds=0.2)
        count = round(slots * seconds / (STAGES * (flooder.cost_seconds + OVERHEAD_SECONDS)))
        jobs = [TraceJob(at_seconds=0.0, user=flooder.name, cost_seconds=flooder.cost_seconds)] * count + jobs
        users = (*users, flooder)
    before = tuple(TraceJob(at_seconds=0.0, user=user.name, cost_seconds=user.cost_seconds) for user in users)
    return Trace(name="flooded" if flooded else "alone", users=users, jobs=tuple(jobs), seconds=seconds, before=before)


def first_come_first_served(trace: Trace) -> Trace:
    """The same jobs, all of one user: they are served in the order in which they came."""
    one = TraceUser(name="everybody", weight=1.0, cost_seconds=GREATEST_COST_SECONDS)
    jobs = tuple(
        TraceJob(at_seconds=job.at_seconds, user=one.name, cost_seconds=job.cost_seconds) for job in trace.jobs
    )
    return Trace(name=f"{trace.name}-fcfs", users=(one,), jobs=jobs, seconds=trace.seconds)


def _between(low: float, high: float, index: int, count: int) -> float:
    return low if count == 1 else low + (high - low) * index / (count - 1)
