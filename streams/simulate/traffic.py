"""Traffic from a specification: inbox entries in the order of time, made as they are needed.

Everything is a function of the seed: the same specification gives the same jobs, whatever the policy does with them.
"""

import heapq
import math
import random
from bisect import bisect
from collections.abc import Iterator
from itertools import accumulate, islice
from statistics import NormalDist
from typing import Any, Final

from streams.simulate.engine import Outcome, Timed
from streams.simulate.spec import Service, Spec, UserGroup

START_MS: Final = 1_000
_MASK: Final = (1 << 64) - 1
_NORMAL: Final = NormalDist()


def job_id(number: int) -> str:
    """The id of job `number`: of the form of a UUID, and as long."""
    return f"{number:08x}-0000-4000-8000-{number:012x}"


def job_number(name: str) -> int:
    """The number in such an id."""
    return int(name[:8], 16)


def user_ids(group: UserGroup) -> list[str]:
    """The users of a group."""
    return [group.name] if group.count == 1 else [f"{group.name}-{index}" for index in range(group.count)]


def tenants(spec: Spec) -> list[dict[str, Any]]:
    """Who pays for what: a tenant_changed entry for every user."""
    return [
        {
            "kind": "tenant_changed",
            "at": START_MS,
            "tenant": {"user_id": user_id, "tier": group.tier, "weight": group.weight, "max_running": None},
        }
        for group in spec.users
        for user_id in user_ids(group)
    ]


def slots(spec: Spec) -> list[dict[str, Any]]:
    """A slot_joined entry for every slot."""
    changes: list[dict[str, Any]] = []
    for name, pool in spec.pools.items():
        serves = [f"{spec.pipeline}/{stage}" for stage in pool.serves or spec.stages]
        for _ in range(pool.slots):
            changes.append(
                {
                    "kind": "slot_joined",
                    "at": START_MS,
                    "slot": {
                        "slot": len(changes),
                        "epoch": 1,
                        "pool": name,
                        "resource_class": pool.resource_class,
                        "serves": serves,
                        "versions": [v if "@" in v else f"{spec.pipeline}@{v}" for v in pool.versions],
                        "capacity": pool.capacity,
                    },
                }
            )
    return changes


def arrivals(spec: Spec) -> Iterator[Timed]:
    """StageReady entries of all groups, numbered in the order in which they come."""
    streams = [_group(spec, index, group) for index, group in enumerate(spec.users)]
    limit = None if spec.jobs is None else spec.jobs
    for number, (at_ms, _, group_index, user, lane, quality) in enumerate(islice(heapq.merge(*streams), limit)):
        group = spec.users[group_index]
        yield at_ms, _ready(spec, number, user_ids_of(group, user), group.tier, lane, quality, at_ms)


def user_ids_of(group: UserGroup, index: int) -> str:
    """The group's user number `index`."""
    return group.name if group.count == 1 else f"{group.name}-{index}"


def _ready(spec: Spec, number: int, user_id: str, tier: str, lane: str, quality: str, at_ms: int) -> dict[str, Any]:
    ready: dict[str, Any] = {
        "job_id": job_id(number),
        "user_id": user_id,
        "pipeline_id": spec.pipeline,
        "stage": spec.stages[0],
        "tier": tier,
        "model_version": None,
        "quality": quality,
        "texture_size": None,
        "lane": lane,
        "priority": 3,
        "artefacts": [],
        "start_by": None,
        "finish_by": None,
        "max_queue_depth": None,
        "retry_of": None,
        "traceparent": None,
        "created_at": at_ms,
        "request": b"",
    }
    return {"kind": "stage_ready", "at": at_ms, "ready": ready}


def _group(spec: Spec, index: int, group: UserGroup) -> Iterator[tuple[int, int, int, int, str, str]]:
    """(at_ms, order, group, user, lane, quality) of a group's jobs, in order."""
    rng = random.Random(f"{spec.seed}/{index}")  # noqa: S311  # traffic, not secrets
    lanes, qualities = _Choice(rng, group.lanes), _Choice(rng, group.quality)
    seconds = _times(spec, group, rng)
    for order, (at_seconds, user) in enumerate(seconds):
        yield START_MS + round(1000 * at_seconds), order, index, user, lanes.next(), qualities.next()


def _times(spec: Spec, group: UserGroup, rng: random.Random) -> Iterator[tuple[float, int]]:
    """(seconds, user) of a group's jobs, in order."""
    end = min(t for t in (group.end_seconds, spec.duration_seconds, float("inf")) if t is not None)
    at = group.start_seconds
    if group.arrivals == "flood":
        if at <= end:
            # Round after round over the users, so that none is first with all.
            yield from ((at, user) for _ in range(group.jobs_each) for user in range(group.count))
        return
    users = _Choice(rng, {str(k): 1 / (k + 1) ** group.zipf for k in range(group.count)})
    if group.arrivals == "bursts":
        while at <= end:
            user = int(users.next())
            yield from ((at, user) for _ in range(group.burst_jobs))
            at += group.every_seconds
        return
    rate = group.jobs_per_second or (group.load or 0.0) * spec.capacity / mean_job_seconds(spec, group)
    at += rng.expovariate(rate)
    while at <= end:
        yield at, int(users.next())
        at += rng.expovariate(rate)


def mean_job_seconds(spec: Spec, group: UserGroup) -> float:
    """Mean slot-seconds of a job of the group, over its users' activity and qualities."""
    stages = sum(spec.service_of(stage).mean_seconds for stage in spec.stages)
    activity = [1 / (k + 1) ** group.zipf for k in range(group.count)]
    factor = sum(a * group.cost_factor_of(k) for k, a in enumerate(activity)) / sum(activity)
    shares = sum(group.quality.values())
    quality = sum(s * spec.policy.quality_factor.get(q, 1.0) for q, s in group.quality.items()) / shares
    return float(stages * factor * quality)


class _Choice:
    """Draws names by their shares."""

    def __init__(self, rng: random.Random, shares: dict[str, float]) -> None:
        self._names = list(shares)
        self._edges = list(accumulate(shares.values()))
        self._random = rng.random

    def next(self) -> str:
        """A name."""
        if len(self._names) == 1:
            return self._names[0]
        return self._names[min(bisect(self._edges, self._random() * self._edges[-1]), len(self._names) - 1)]


class MadeWork:
    """Service times and failures of a specification. An attempt's fate depends on the seed, the job, the stage and the
    attempt alone: another policy or other slots change nothing of it."""

    def __init__(self, spec: Spec) -> None:
        self._seed = spec.seed * 0x9E3779B97F4A7C15
        self._service = {stage: spec.service_of(stage) for stage in spec.stages}
        self._failures = list(zip(spec.failures, accumulate(spec.failures.values()), strict=True))
        # A version keeps its failures when a later route leaves it without a share.
        self._of_version = {
            (route.stage, version): share for route in spec.routes for version, share in route.failures.items()
        }
        self._dispatch_ms = spec.dispatch_ms
        self._quality = spec.policy.quality_factor
        self._factors = {
            user_id: group.cost_factor_of(index)
            for group in spec.users
            for index, user_id in enumerate(user_ids(group))
        }

    def outcome(self, item: dict[str, Any]) -> Outcome:
        """See Work."""
        number = job_number(item["job_id"])
        salt = item["stage_index"] * 64 + item["attempt"]
        seconds = self._seconds(item, _uniform(self._seed, number, 2 * salt))
        if self._failures:
            drawn = _uniform(self._seed, number, 2 * salt + 1)
            for error_class, edge in self._failures:
                if drawn < edge:
                    seconds *= drawn / edge  # it fails somewhere on its way
                    return Outcome(self._dispatch_ms + round(1000 * seconds), seconds, "failed", error_class)
        if self._of_version:
            edge = self._of_version.get((item["stage"], item["model_version"]), 0.0)
            if _uniform(self._seed, number, 2 * salt + 100_001) < edge:
                return Outcome(self._dispatch_ms + round(1000 * seconds), seconds, "failed", "transient")
        return Outcome(self._dispatch_ms + round(1000 * seconds), seconds)

    def _seconds(self, item: dict[str, Any], drawn: float) -> float:
        service = self._service[item["stage"]]
        factor = self._factors[item["user_id"]] * self._quality.get(item["quality"], 1.0)
        return service.mean_seconds * factor * _variate(service, drawn)


def _variate(service: Service, drawn: float) -> float:
    """A value of mean 1 from a uniform one in (0, 1)."""
    if service.shape == "fixed":
        return 1.0
    if service.shape == "uniform":
        return 2 * drawn
    if service.shape == "exponential":
        return -math.log(1.0 - drawn)
    variance = math.log(1 + service.spread**2)
    return math.exp(_NORMAL.inv_cdf(drawn) * math.sqrt(variance) - variance / 2)


def _uniform(seed: int, number: int, salt: int) -> float:
    """A number in (0, 1) of a seed and two counters: splitmix64 (Steele, Lea, Flood, OOPSLA 2014)."""
    z = (seed + number * 0xBF58476D1CE4E5B9 + (salt + 1) * 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return ((z ^ (z >> 31)) + 0.5) / 2**64


def routes(spec: Spec) -> Iterator[Timed]:
    """routing_changed entries in the order of time."""
    for revision, route in enumerate(sorted(spec.routes, key=lambda route: route.at_seconds), 1):
        at_ms = START_MS + round(1000 * route.at_seconds)
        rule = {
            "name": f"{spec.pipeline}/{route.stage}",
            "pipeline_id": spec.pipeline,
            "stage": route.stage,
            "experiment": route.experiment,
            "arms": [{"model_version": version, "weight": weight} for version, weight in route.arms.items()],
            "stable": route.stable,
            "guard": {
                "min_tasks": route.min_tasks,
                "failure_margin": route.failure_margin,
                "p95_margin": route.p95_margin,
            },
            "revision": revision,
            "changed_by": "specification",
            "reason": "as the specification says",
            "changed_at": at_ms,
        }
        yield at_ms, {"kind": "routing_changed", "at": at_ms, "routing": rule}


def background(spec: Spec) -> Iterator[Timed]:
    """What happens besides the traffic: routes, and slots that are lost and come back."""
    return heapq.merge(routes(spec), losses(spec), key=lambda timed: timed[0])


def losses(spec: Spec) -> Iterator[Timed]:
    """Slots that die and come back, for ever: slot_lost and slot_joined entries in the order of time."""
    joined = [entry["slot"] for entry in slots(spec)]
    rates = {name: pool.slots * pool.lost_per_hour / 3600 for name, pool in spec.pools.items()}
    total = sum(rates.values())
    if not total:
        return
    rng = random.Random(f"{spec.seed}/losses")  # noqa: S311
    pools = _Choice(rng, {name: rate for name, rate in rates.items() if rate})
    by_pool = {name: [change for change in joined if change["pool"] == name] for name in rates}
    back: list[tuple[int, int]] = []
    down: set[int] = set()
    at_ms = START_MS
    while True:
        at_ms += round(1000 * rng.expovariate(total))
        while back and back[0][0] <= at_ms:
            back_ms, number = heapq.heappop(back)
            down.discard(number)
            change = joined[number] = {**joined[number], "epoch": joined[number]["epoch"] + 1}
            yield back_ms, {"kind": "slot_joined", "at": back_ms, "slot": change}
        name = pools.next()
        number = rng.choice(by_pool[name])["slot"]
        if number in down:
            continue
        down.add(number)
        yield at_ms, {"kind": "slot_lost", "at": at_ms, "slot": joined[number]}
        heapq.heappush(back, (at_ms + round(1000 * spec.pools[name].back_seconds), number))
