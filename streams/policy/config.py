"""The policy: every number that a decision depends on and that an operator may change.

It is part of the scheduler's state: a change comes through the inbox, so a replay decides by the policy of its time.
Files are TOML (`MESHYARD_POLICY_FILE`); what a file does not name keeps its default. The order of `lanes` is the
order of urgency.
"""

import hashlib
import tomllib
from typing import Any, Final

import msgspec

LANES: Final = ("interactive", "standard", "batch")
MAX_WEIGHT: Final = 1e6
FREE: Final = "free"


class PolicyError(ValueError):
    """A policy that cannot be used; the message names the field and the remedy."""

    def __init__(self, field: str, remedy: str) -> None:
        self.field = field
        super().__init__(f"{field}: {remedy}")


class Tier(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What users of a tier get. weight: share under contention; max_running: tasks at once; max_backlog: jobs held,
    queued or running at once. The last two may be set for a user in control.tenants."""

    weight: float = 1.0
    max_running: int = 4
    max_backlog: int = 100


class Pool(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which lanes a pool's slots serve. first: the lane that goes before all others here, whatever its share;
    reserve: places of the pool that stay free for it, so that it need not wait for a long task of another lane."""

    lanes: tuple[str, ...] = LANES
    first: str | None = None
    reserve: int = 0


class Retry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of a stage. max_attempts: tries in all; base_seconds, cap_seconds: of exponential delays."""

    max_attempts: int = 3
    base_seconds: float = 1.0
    cap_seconds: float = 60.0


class Level(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Entered when the predicted wait or the age of the oldest queued task exceeds these."""

    wait_seconds: float
    age_seconds: float


class Load(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What happens under load.

    levels: thresholds of level 1, 2 and 3; release_factor, hold_seconds: a level ends when both figures have been under
    release_factor × its thresholds for so long. Level 1 caps textures at texture_cap pixels; level 2 lowers the quality
    of degrade_tiers to degrade_quality_to; level 3 refuses submissions of refuse_tiers and refuse_lanes.
    """

    levels: tuple[Level, ...] = (
        Level(wait_seconds=60.0, age_seconds=120.0),
        Level(wait_seconds=180.0, age_seconds=300.0),
        Level(wait_seconds=600.0, age_seconds=900.0),
    )
    release_factor: float = 0.7
    hold_seconds: float = 10.0
    texture_cap: int = 2048
    degrade_tiers: tuple[str, ...] = (FREE,)
    degrade_quality_from: tuple[str, ...] = ("high", "standard")
    degrade_quality_to: str = "draft"
    refuse_tiers: tuple[str, ...] = (FREE,)
    refuse_lanes: tuple[str, ...] = ("batch",)


def _lanes() -> dict[str, float]:
    return {"interactive": 70.0, "standard": 25.0, "batch": 5.0}


def _tiers() -> dict[str, Tier]:
    return {
        FREE: Tier(),
        "pro": Tier(weight=4.0, max_running=32, max_backlog=5_000),
        "enterprise": Tier(weight=16.0, max_running=256, max_backlog=50_000),
    }


def _pools() -> dict[str, Pool]:
    return {
        "fast": Pool(first="interactive", reserve=1),
        "batch": Pool(lanes=("standard", "batch")),
    }


def _quality_factor() -> dict[str, float]:
    return {"draft": 0.5, "standard": 1.0, "high": 2.0}


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the scheduler decides.

    lanes: weights; tiers: unknown ones count as free; pools: unknown ones serve every lane; retries: by stage, `*` for
    the rest; costs: GPU-seconds charged before one was measured, by pipeline/stage, instead of the pipeline's prior;
    quality_factor: multiplies such a prior; cost_decay: weight of the newest measurement in the mean cost;
    affinity_gpu_seconds: how far (in GPU-seconds per unit of weight) a task may stand behind the fairest one and still
    be taken first by a slot that has its model warm; remember_ms: how long ended jobs and early cancels are known.
    """

    lanes: dict[str, float] = msgspec.field(default_factory=_lanes)
    tiers: dict[str, Tier] = msgspec.field(default_factory=_tiers)
    pools: dict[str, Pool] = msgspec.field(default_factory=_pools)
    retries: dict[str, Retry] = msgspec.field(default_factory=lambda: {"*": Retry()})
    costs: dict[str, float] = msgspec.field(default_factory=dict)
    quality_factor: dict[str, float] = msgspec.field(default_factory=_quality_factor)
    cost_decay: float = 0.2
    affinity_gpu_seconds: float = 1.0
    load: Load = msgspec.field(default_factory=Load)
    remember_ms: int = 24 * 3_600_000

    def tier(self, name: str) -> Tier:
        """A tier's rules; those of `free` for a name that the policy does not have."""
        return self.tiers.get(name) or self.tiers[FREE]

    def pool(self, name: str) -> Pool:
        """A pool's rules; all lanes for a name that the policy does not have."""
        return self.pools.get(name) or _ANY_POOL

    def retry(self, stage: str) -> Retry:
        """A stage's limits."""
        return self.retries.get(stage) or self.retries["*"]


_ANY_POOL: Final = Pool()
DEFAULT: Final = Policy()


def load_policy(text: str) -> Policy:
    """A policy from a TOML file's text. Tables (lanes, tiers, pools, retries...) are merged entry by entry with the
    defaults. Raises PolicyError."""
    try:
        given = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PolicyError("policy", f"is no TOML: {error}") from None
    return _checked(_convert(_merged(msgspec.to_builtins(DEFAULT), given)))


def parse_policy(text: str) -> Policy:
    """A policy from what `dump_policy` wrote. Raises PolicyError."""
    try:
        given = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise PolicyError("policy", f"is no JSON: {error}") from None
    return _checked(_convert(given))


def dump_policy(policy: Policy) -> str:
    """The whole policy as JSON; equal policies give equal text."""
    return msgspec.json.encode(policy, order="deterministic").decode()


def digest(policy: Policy) -> str:
    """Names a policy: 64 hex digits of SHA-256 over its JSON."""
    return hashlib.sha256(dump_policy(policy).encode()).hexdigest()


def _convert(given: Any) -> Policy:
    try:
        policy = msgspec.convert(given, Policy)
    except msgspec.ValidationError as error:
        detail, _, where = str(error).partition(" - at `$")
        raise PolicyError(where.rstrip("`").lstrip(".") or "policy", detail) from None
    if set(policy.lanes) != set(LANES):
        raise PolicyError("lanes", f"are {', '.join(policy.lanes)}; give weights for {', '.join(LANES)}")
    return msgspec.structs.replace(policy, lanes={name: policy.lanes[name] for name in LANES})


def _merged(default: Any, given: Any) -> Any:
    """Tables are merged, everything else is replaced."""
    if not isinstance(default, dict) or not isinstance(given, dict):
        return given
    return {**default, **{name: _merged(default.get(name), value) for name, value in given.items()}}


def _checked(policy: Policy) -> Policy:
    if FREE not in policy.tiers:
        raise PolicyError("tiers", f"lack {FREE!r}, which users without a row have")
    if "*" not in policy.retries:
        raise PolicyError("retries", "lack '*', the limits of stages that are not named")
    for name, weight in policy.lanes.items():
        _weight(f"lanes.{name}", weight)
    for name, tier in policy.tiers.items():
        _weight(f"tiers.{name}.weight", tier.weight)
        _at_least(f"tiers.{name}.max_running", tier.max_running, 1)
        _at_least(f"tiers.{name}.max_backlog", tier.max_backlog, 1)
    for name, pool in policy.pools.items():
        _check_pool(name, pool)
    for name, retry in policy.retries.items():
        _at_least(f"retries.{name}.max_attempts", retry.max_attempts, 1)
        _at_least(f"retries.{name}.base_seconds", retry.base_seconds, 0)
        _at_least(f"retries.{name}.cap_seconds", retry.cap_seconds, retry.base_seconds)
    for name, cost in policy.costs.items():
        _at_least(f"costs.{name}", cost, 0)
    for name, factor in policy.quality_factor.items():
        _at_least(f"quality_factor.{name}", factor, 0)
    if not 0 < policy.cost_decay <= 1:
        raise PolicyError("cost_decay", f"{policy.cost_decay} is not within (0, 1]")
    _at_least("affinity_gpu_seconds", policy.affinity_gpu_seconds, 0)
    _at_least("remember_ms", policy.remember_ms, 0)
    _check_load(policy.load)
    return policy


def _check_pool(name: str, pool: Pool) -> None:
    for lane in (*pool.lanes, *((pool.first,) if pool.first else ())):
        if lane not in LANES:
            raise PolicyError(f"pools.{name}", f"{lane!r} is no lane; there are {', '.join(LANES)}")
    if not pool.lanes:
        raise PolicyError(f"pools.{name}.lanes", "are empty; name those that its slots serve")
    if pool.first is not None and pool.first not in pool.lanes:
        raise PolicyError(f"pools.{name}.first", f"{pool.first!r} is not among the pool's lanes")
    _at_least(f"pools.{name}.reserve", pool.reserve, 0)
    if pool.reserve and pool.first is None:
        raise PolicyError(f"pools.{name}.reserve", "needs `first`, the lane that it is kept for")


def _check_load(load: Load) -> None:
    if len(load.levels) != 3:
        raise PolicyError("load.levels", f"{len(load.levels)} given; give three, for the levels 1 to 3")
    for lower, upper in zip(load.levels, load.levels[1:], strict=False):
        if upper.wait_seconds < lower.wait_seconds or upper.age_seconds < lower.age_seconds:
            raise PolicyError("load.levels", "fall; each level's thresholds must be at least those of the one before")
    _at_least("load.levels", load.levels[0].wait_seconds, 0)
    _at_least("load.levels", load.levels[0].age_seconds, 0)
    if not 0 < load.release_factor <= 1:
        raise PolicyError("load.release_factor", f"{load.release_factor} is not within (0, 1]")
    _at_least("load.hold_seconds", load.hold_seconds, 0)
    _at_least("load.texture_cap", load.texture_cap, 1)
    for lane in load.refuse_lanes:
        if lane not in LANES:
            raise PolicyError("load.refuse_lanes", f"{lane!r} is no lane; there are {', '.join(LANES)}")


def _weight(field: str, weight: float) -> None:
    if not 1 / MAX_WEIGHT <= weight <= MAX_WEIGHT:  # NaN is refused too
        raise PolicyError(field, f"{weight} is not within {1 / MAX_WEIGHT:g} and {MAX_WEIGHT:g}")


def _at_least(field: str, value: float, least: float) -> None:
    if not value >= least or value == float("inf"):
        raise PolicyError(field, f"{value} is not a number of at least {least:g}")
