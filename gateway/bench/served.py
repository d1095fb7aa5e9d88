"""What jobs.events say of a trace: who waited when, who was served how much. Pure: works on decoded events."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from schemas.jobs import TERMINAL_TRANSITIONS
from streams.simulate.measures import Fairness, FairnessMeter

_READY, _START, _END = range(3)
_STEP_SHARE: Final = (0.05, 0.90)


@dataclass(kw_only=True)
class Served:
    """A trace's tasks, from its events. Times are seconds since 1970.

    moments: (time, what, user, job, GPU-seconds of what starts) in the order of time.
    """

    moments: list[tuple[float, int, str, str, float]]
    waits: dict[str, list[float]] = field(default_factory=dict)  # user -> seconds from request to first start
    ended: int = 0
    succeeded: int = 0

    @property
    def gpu_seconds(self) -> float:
        """All that was served."""
        return sum(cost for _, what, _, _, cost in self.moments if what == _START)


def read_events(events: Iterable[Mapping[str, Any]]) -> Served:
    """From the JobEvents of a trace, repeats included, in any order."""
    served = Served(moments=[])
    unique = {event["event_id"]: event for event in events}
    cost: dict[tuple[str, str, int], float] = {}
    for event in unique.values():
        if event["transition"] in ("stage_succeeded", "stage_failed") and event["gpu_seconds"] is not None:
            cost[event["job_id"], event["stage"], event["attempt"]] = event["gpu_seconds"]
    first: dict[str, float] = {}
    for event in unique.values():
        at, user, job, how = event["at"] / 1000, event["user_id"], event["job_id"], event["transition"]
        if how == "queued":
            served.moments.append((at, _READY, user, job, 0.0))
        elif how == "started":
            key = (job, event["stage"], event["attempt"])
            served.moments.append((at, _START, user, job, cost.get(key, 0.0)))
            wait = at - event["created_at"] / 1000
            first[job] = min(first.get(job, wait), wait)
        elif how == "stage_succeeded":
            served.moments.append((at, _END, user, job, 0.0))
            if event["stage_index"] + 1 < event["stage_count"]:
                served.moments.append((at, _READY, user, job, 0.0))
        if how in TERMINAL_TRANSITIONS:
            served.ended += 1
            served.succeeded += how == "succeeded"
    users = {event["job_id"]: event["user_id"] for event in unique.values()}
    for job, wait in first.items():
        served.waits.setdefault(users[job], []).append(wait)
    for waits in served.waits.values():
        waits.sort()
    served.moments.sort(key=lambda moment: (moment[0], moment[1]))
    return served


def fairness(served: Served, weights: Mapping[str, float], in_flight: int) -> Fairness:
    """Lag and Jain's index over the users with these weights; others are left out."""
    meter = FairnessMeter(weights, in_flight)
    at = 0.0
    for at, what, user, _, cost in served.moments:
        if user not in weights:
            continue
        if what == _READY:
            meter.ready(user, at)
        elif what == _START:
            meter.start(user, cost, at)
    return meter.figures(at)


def rounds_before_first_start(served: Served, user: str, in_flight: int) -> float:
    """How many tasks of others started between a user's first job's queueing and its start, in rounds of the slots.
    Infinite when it never started."""
    queued: float | None = None
    others = 0
    for at, what, who, _, _ in served.moments:
        if who == user and what == _READY and queued is None:
            queued = at
        elif what == _START and queued is not None:
            if who == user:
                return others / in_flight
            others += 1
    return float("inf")


def throughput(served: Served) -> float:
    """GPU-seconds served a second, from 5 to 90 % of the trace's work: its ends, when slots run empty, are left out."""
    total, done = served.gpu_seconds, 0.0
    begin: tuple[float, float] | None = None
    for at, what, _, _, cost in served.moments:
        if what != _START:
            continue
        done += cost
        if begin is None and done >= _STEP_SHARE[0] * total:
            begin = (at, done)
        if begin is not None and done >= _STEP_SHARE[1] * total and at > begin[0]:
            return (done - begin[1]) / (at - begin[0])
    return 0.0


def normalised_service(served: Served, weights: Mapping[str, float]) -> dict[str, list[tuple[float, float]]]:
    """user -> (seconds since the first start, GPU-seconds / weight served until then)."""
    begin: float | None = None
    found: dict[str, list[tuple[float, float]]] = {user: [(0.0, 0.0)] for user in weights}
    for at, what, user, _, cost in served.moments:
        if what == _START and user in weights:
            begin = at if begin is None else begin
            found[user].append((at - begin, found[user][-1][1] + cost / weights[user]))
    return found
