"""What a simulation is told: traffic, slots, service times and failures, from a TOML file.

A file names at least one `[[users]]` group and one pool; docs/scheduling.md shows some.
"""

import tomllib
from typing import Final, Literal

import msgspec

from schemas.pipelines import PIPELINES
from streams.policy.config import DEFAULT, LANES, Policy, PolicyError, dump_policy, load_policy, parse_policy

Shape = Literal["fixed", "uniform", "exponential", "lognormal"]
Arrivals = Literal["poisson", "bursts", "flood"]
ERROR_CLASSES: Final = ("transient", "crash", "timeout", "oom", "overload", "rate_limited", "permanent", "invalid")
MOST_SLOTS: Final = 1_000_000


class SpecError(ValueError):
    """A specification that cannot be simulated; the message names the field and the remedy."""

    def __init__(self, field: str, remedy: str) -> None:
        self.field = field
        super().__init__(f"{field}: {remedy}")


class _Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Service(_Record, frozen=True):
    """How long an attempt of a stage holds its slot. spread: standard deviation / mean, of a lognormal."""

    mean_seconds: float
    shape: Shape = "lognormal"
    spread: float = 0.5


class PoolSpec(_Record, frozen=True):
    """Slots of one kind. serves: stages, empty for all; lost_per_hour: how often one slot dies, its worker being back
    after back_seconds; versions: of the model, as slots announce them."""

    slots: int
    serves: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()
    capacity: int = 1
    resource_class: str = "gpu"
    lost_per_hour: float = 0.0
    back_seconds: float = 20.0


class UserGroup(_Record, frozen=True):
    """Users that behave alike.

    weight: personal multiplier on the tier's; zipf: exponent of their activity (0: all alike, user k gets 1/k**zipf);
    arrivals: `poisson` at jobs_per_second (of the whole group) or at `load` (a share of what the slots can do);
    `bursts` of burst_jobs by one user every every_seconds; `flood`: jobs_each of every user at once. They come between
    start_seconds and end_seconds (None: the simulation's end). lanes, quality: shares; cost_factor: multiplies the
    service times, at the group's last user by cost_factor_last, evenly spread between them.
    """

    name: str
    count: int = 1
    tier: str = "pro"
    weight: float = 1.0
    zipf: float = 0.0
    arrivals: Arrivals = "poisson"
    jobs_per_second: float | None = None
    load: float | None = None
    burst_jobs: int = 50
    every_seconds: float = 60.0
    jobs_each: int = 100
    start_seconds: float = 0.0
    end_seconds: float | None = None
    lanes: dict[str, float] = msgspec.field(default_factory=lambda: {"standard": 1.0})
    quality: dict[str, float] = msgspec.field(default_factory=lambda: {"standard": 1.0})
    cost_factor: float = 1.0
    cost_factor_last: float | None = None

    def cost_factor_of(self, index: int) -> float:
        """The factor of the group's user number `index`, from 0."""
        if self.cost_factor_last is None or self.count == 1:
            return self.cost_factor
        return self.cost_factor + (self.cost_factor_last - self.cost_factor) * index / (self.count - 1)


class RouteSpec(_Record, frozen=True):
    """Which model versions serve a stage from at_seconds on. arms: version -> share; failures: version -> share of its
    attempts that fail in passing, beside the others' failures; min_tasks, failure_margin, p95_margin: the guard's, as
    in a RoutingRule."""

    stage: str
    arms: dict[str, float]
    stable: str
    at_seconds: float = 0.0
    experiment: str = "canary"
    failures: dict[str, float] = msgspec.field(default_factory=dict)
    min_tasks: int = 100
    failure_margin: float = 0.05
    p95_margin: float = 0.5


class Spec(_Record, frozen=True):
    """A simulation.

    It ends when duration_seconds are over or `jobs` jobs have come (at least one is given), and all of them have ended.
    stages: those of the pipeline that a job runs through, empty for all; it must be a tail of them. dispatch_ms: how
    long a decision needs to its slot. failures: share of attempts that fail, by error class.
    """

    pools: dict[str, PoolSpec]
    users: tuple[UserGroup, ...]
    seed: int = 0
    duration_seconds: float | None = None
    jobs: int | None = None
    pipeline: str = "synthetic"
    first_stage: str | None = None
    service: dict[str, Service] = msgspec.field(default_factory=dict)
    failures: dict[str, float] = msgspec.field(default_factory=dict)
    dispatch_ms: int = 5
    routes: tuple[RouteSpec, ...] = ()
    policy: Policy = DEFAULT

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages that a job runs through."""
        names = tuple(stage.name for stage in PIPELINES[self.pipeline].stages)
        return names if self.first_stage is None else names[names.index(self.first_stage) :]

    @property
    def capacity(self) -> int:
        """Tasks that all slots run at once."""
        return sum(pool.slots * pool.capacity for pool in self.pools.values())

    def service_of(self, stage: str) -> Service:
        """A stage's service times; the pipeline's prior where the file says nothing."""
        found = self.service.get(stage)
        if found is not None:
            return found
        pipeline = PIPELINES[self.pipeline]
        return Service(mean_seconds=pipeline.stages[pipeline.stage_index(stage)].prior_gpu_seconds)


def load_spec(text: str) -> Spec:
    """A specification from a TOML file's text; its `policy` table is merged with the default policy.

    Raises SpecError.
    """
    try:
        given = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SpecError("spec", f"is no TOML: {error}") from None
    policy = given.pop("policy", {})
    try:
        spec = msgspec.convert(given, Spec)
        chosen = _policy(policy)
    except msgspec.ValidationError as error:
        detail, _, where = str(error).partition(" - at `$")
        raise SpecError(where.rstrip("`").lstrip(".") or "spec", detail) from None
    except PolicyError as error:
        raise SpecError(f"policy.{error.field}", str(error).partition(": ")[2]) from None
    return checked(msgspec.structs.replace(spec, policy=chosen))


def _policy(table: object) -> Policy:
    """A table of the file over the default policy. Raises PolicyError."""
    merged = _merged(msgspec.json.decode(dump_policy(DEFAULT)), table)
    return parse_policy(msgspec.json.encode(merged).decode())


def _merged(default: object, given: object) -> object:
    if not isinstance(default, dict) or not isinstance(given, dict):
        return given
    return {**default, **{name: _merged(default.get(name), value) for name, value in given.items()}}


def checked(spec: Spec) -> Spec:
    """The same specification. Raises SpecError when it cannot be simulated."""
    if spec.jobs is None and spec.duration_seconds is None:
        raise SpecError("duration_seconds", "is not given, nor `jobs`; say when the traffic ends")
    if spec.pipeline not in PIPELINES:
        raise SpecError("pipeline", f"{spec.pipeline!r} is not known; there are {', '.join(PIPELINES)}")
    names = [stage.name for stage in PIPELINES[spec.pipeline].stages]
    if spec.first_stage is not None and spec.first_stage not in names:
        raise SpecError("first_stage", f"{spec.first_stage!r} is not known; there are {', '.join(names)}")
    for stage, service in spec.service.items():
        if stage not in names:
            raise SpecError(f"service.{stage}", f"is no stage of {spec.pipeline}; there are {', '.join(names)}")
        _positive(f"service.{stage}.mean_seconds", service.mean_seconds)
        _positive(f"service.{stage}.spread", service.spread)
    for error_class, share in spec.failures.items():
        if error_class not in ERROR_CLASSES:
            raise SpecError(f"failures.{error_class}", f"is no error class; there are {', '.join(ERROR_CLASSES)}")
        if not 0 <= share < 1:
            raise SpecError(f"failures.{error_class}", f"{share} is no share; give one from 0 to 1")
    _check_pools(spec, names)
    if not spec.users:
        raise SpecError("users", "are not given; add a [[users]] table")
    for group in spec.users:
        _check_group(group)
    for route in spec.routes:
        _check_route(route, names)
    if spec.duration_seconds is not None:
        _positive("duration_seconds", spec.duration_seconds)
    return spec


def _check_pools(spec: Spec, names: list[str]) -> None:
    if not spec.pools:
        raise SpecError("pools", "are not given; add a [pools.NAME] table with `slots`")
    for name, pool in spec.pools.items():
        if not 1 <= pool.slots <= MOST_SLOTS:
            raise SpecError(f"pools.{name}.slots", f"{pool.slots} is not within 1 and {MOST_SLOTS}")
        if pool.capacity < 1:
            raise SpecError(f"pools.{name}.capacity", f"{pool.capacity} is too small; give at least 1")
        unknown = set(pool.serves) - set(names)
        if unknown:
            raise SpecError(f"pools.{name}.serves", f"{sorted(unknown)} are no stages; there are {', '.join(names)}")
    unserved = [s for s in spec.stages if not any(not p.serves or s in p.serves for p in spec.pools.values())]
    if unserved:
        raise SpecError("pools", f"none serves the stage {unserved[0]!r}")


def _check_route(route: RouteSpec, names: list[str]) -> None:
    if route.stage not in names:
        raise SpecError("routes.stage", f"{route.stage!r} is not known; there are {', '.join(names)}")
    if route.stable not in route.arms:
        raise SpecError("routes.stable", f"{route.stable!r} is none of the arms {', '.join(route.arms)}")
    for version, share in route.failures.items():
        if version not in route.arms or not 0 <= share < 1:
            raise SpecError(f"routes.failures.{version}", "give a share from 0 to 1 of one of the arms")


def _check_group(group: UserGroup) -> None:
    where = f"users.{group.name}"
    if not group.name or group.count < 1:
        raise SpecError(f"{where}.count", "a group has a name and at least one user")
    _positive(f"{where}.weight", group.weight)
    _positive(f"{where}.cost_factor", group.cost_factor)
    if group.arrivals == "poisson":
        if (group.jobs_per_second is None) == (group.load is None):
            raise SpecError(f"{where}.jobs_per_second", "give either jobs_per_second or load")
        _positive(f"{where}.jobs_per_second", group.jobs_per_second or group.load or 0.0)
    if group.arrivals == "bursts":
        _positive(f"{where}.every_seconds", group.every_seconds)
        _positive(f"{where}.burst_jobs", group.burst_jobs)
    for lane, share in group.lanes.items():
        if lane not in LANES:
            raise SpecError(f"{where}.lanes", f"{lane!r} is no lane; there are {', '.join(LANES)}")
        _positive(f"{where}.lanes.{lane}", share)
    for quality, share in group.quality.items():
        if quality not in ("draft", "standard", "high"):
            raise SpecError(f"{where}.quality", f"{quality!r} is no quality; there are draft, standard, high")
        _positive(f"{where}.quality.{quality}", share)
    if not group.lanes or not group.quality:
        raise SpecError(where, "lanes and quality need at least one entry")


def _positive(field: str, value: float) -> None:
    if not 0 < value < float("inf"):
        raise SpecError(field, f"{value} is no number above 0")


def with_policy(spec: Spec, text: str) -> Spec:
    """The specification under the policy of a TOML file. Raises SpecError."""
    try:
        return msgspec.structs.replace(spec, policy=load_policy(text))
    except PolicyError as error:
        raise SpecError(f"policy.{error.field}", str(error).partition(": ")[2]) from None
