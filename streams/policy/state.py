"""What the scheduler knows: plain records that a snapshot holds whole. Everything else is derived from them."""

from functools import lru_cache
from typing import Any

import msgspec

from schemas.pipelines import parse_kind
from streams.policy.calibration import Calibration, Expectation
from streams.policy.config import DEFAULT, FREE, Policy, digest
from streams.policy.fairqueue import Clockwork
from streams.policy.load import LevelState
from streams.policy.routing import Routed


@lru_cache(maxsize=4096)
def _parts(kind: str) -> tuple[str, str]:
    """(stage, version) of a kind."""
    _, stage, version = parse_kind(kind)
    return stage, version


class Job(msgspec.Struct, kw_only=True, gc=False, array_like=True):
    """A job that is not at its end. There may be a million: fields are flat, and what many jobs share is one object.

    request: the JobRequested record as it came, never read here; wanted_version: what the user pinned; quality,
    texture_size, adjustments: after what the load level took away; stage_index, attempt: where it stands (attempt 0:
    the stage has not been tried); kind: pipeline/stage@version of that stage; max_attempts: what the running attempt's
    worker was told; expected: what was predicted at arrived_at; due_at: when the next attempt may start, 0 at once;
    first_at: of the first dispatch, 0 before; slot: where it runs, None while it waits; charged, estimate: booked for
    the running attempt, GPU-seconds / weight and GPU-seconds; passed: GPU-seconds that went before the waiting task
    because a slot was warm; stop_class, stop_reason: set once it shall end, by its user or a deadline.
    """

    job_id: str
    user_id: str
    pipeline_id: str
    tier: str
    lane: str
    quality: str
    kind: str = ""
    wanted_version: str | None = None
    texture_size: int | None = None
    priority: int = 3
    sequence: int
    stage_index: int
    attempt: int = 0
    max_attempts: int = 0
    artefacts: tuple[dict[str, Any], ...] = ()
    adjustments: tuple[str, ...] = ()
    start_by: int | None = None
    finish_by: int | None = None
    retry_of: str | None = None
    traceparent: str | None = None
    created_at: int
    request: bytes = b""
    arrived_at: int
    expected: Expectation | None = None
    ready_at: int
    due_at: int = 0
    first_at: int = 0
    dispatched_at: int = 0
    slot: int | None = None
    epoch: int = 0
    charged: float = 0.0
    estimate: float = 0.0
    passed: float = 0.0
    paused: bool = False
    stop_class: str | None = None
    stop_reason: str = ""

    @property
    def stage(self) -> str:
        """Name of the stage at which it stands."""
        return _parts(self.kind)[0]

    @property
    def version(self) -> str:
        """The model version chosen for that stage."""
        return _parts(self.kind)[1]


class Slot(msgspec.Struct, kw_only=True):
    """A place where tasks run, `capacity` at once. jobs: what it runs, with the attempt of each; warm: the kind that
    it was sent last, empty before the first; draining: it takes nothing new."""

    slot: int
    epoch: int
    pool: str
    resource_class: str
    serves: tuple[str, ...]
    versions: tuple[str, ...] = ()
    capacity: int = 1
    draining: bool = False
    jobs: dict[str, int] = {}
    warm: str = ""

    @property
    def places(self) -> int:
        """How many more tasks it takes."""
        return 0 if self.draining else max(0, self.capacity - len(self.jobs))


class Tenant(msgspec.Struct, kw_only=True, gc=False):
    """A user's standing, by control.tenants. weight: multiplies the tier's; max_running: None leaves it to the tier."""

    tier: str = FREE
    weight: float = 1.0
    max_running: int | None = None


class Habit(msgspec.Struct, kw_only=True, gc=False):
    """What a user's tasks cost. seen_at: when one ended last; costs: kind, pool and quality -> decayed mean."""

    seen_at: int = 0
    costs: dict[str, float] = {}


class EarlyCancel(msgspec.Struct, kw_only=True, gc=False):
    """A cancel that came before its job; kept until the job comes or `at` is long past."""

    reason: str
    at: int


class Reported(msgspec.Struct, kw_only=True):
    """What the last report said and the next may say again. at: its time; swept_at: when the users with a backlog were
    last gone through; backlog: what the report names of them."""

    at: int = 0
    swept_at: int = 0
    backlog: list[dict[str, Any]] = []


class SchedulerState(msgspec.Struct, kw_only=True):
    """The fold's whole state after the inbox record before `next_offset`.

    now: the greatest time read; trusted_at: the greatest that no worker wrote; clock_told_at: when a wrong clock was
    last told; epochs: slot -> its newest life, over or not; costs: kind, pool and quality -> decayed mean of measured
    GPU-seconds; habits: user -> what her tasks cost, oldest first; finished: job_id -> when it ended, oldest first,
    since admission may repeat a StageReady; forgot_at: when past flows were last dropped.
    """

    next_offset: int = 0
    now: int = 0
    trusted_at: int = 0
    clock_told_at: int = 0
    sequence: int = 0
    policy: Policy = DEFAULT
    policy_digest: str = digest(DEFAULT)
    clockwork: Clockwork = msgspec.field(default_factory=Clockwork)
    jobs: dict[str, Job] = {}
    slots: dict[int, Slot] = {}
    epochs: dict[int, int] = {}
    tenants: dict[str, Tenant] = {}
    routing: dict[str, Routed] = {}
    costs: dict[str, float] = {}
    habits: dict[str, Habit] = {}
    early_cancels: dict[str, EarlyCancel] = {}
    finished: dict[str, int] = {}
    level: LevelState = LevelState()
    calibration: Calibration = msgspec.field(default_factory=Calibration)
    reported: Reported = msgspec.field(default_factory=Reported)
    forgot_at: int = 0


class Snapshot(msgspec.Struct, kw_only=True):
    """A state with what is needed to trust it: the version of the code's policy that made it."""

    policy_version: int
    state: SchedulerState


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """MessagePack; floats keep all their bits, so a fold from it gives the same decisions."""
    return msgspec.msgpack.encode(snapshot)


def decode_snapshot(data: bytes) -> Snapshot:
    """Raises msgspec.ValidationError or DecodeError for bytes that are no snapshot."""
    return msgspec.msgpack.decode(data, type=Snapshot)
