"""What the scheduler knows: plain records that a snapshot holds whole. Everything else is derived from them."""

from typing import Any

import msgspec

from streams.policy.fairqueue import Clockwork


class Job(msgspec.Struct, kw_only=True):
    """A job that is not at its end.

    spec: the StageReady record, less stage and artefacts; stage_index, attempt: where it stands (attempt 0: the stage
    has not been tried); slot: where it runs, None while it waits; charged: GPU-seconds / weight booked for the running
    attempt; cancel_reason: set once its user wants it canceled.
    """

    spec: dict[str, Any]
    sequence: int
    stage_index: int
    attempt: int = 0
    artefacts: list[dict[str, Any]] = []
    ready_at: int
    dispatched_at: int = 0
    slot: int | None = None
    epoch: int = 0
    charged: float = 0.0
    cancel_reason: str | None = None


class Slot(msgspec.Struct, kw_only=True):
    """A place where one task runs. job_id: what it runs, None when free."""

    slot: int
    epoch: int
    pool: str
    resource_class: str
    serves: tuple[str, ...]
    job_id: str | None = None


class EarlyCancel(msgspec.Struct, kw_only=True):
    """A cancel that came before its job; kept until the job comes or `at` is long past."""

    user_id: str
    reason: str
    at: int


class SchedulerState(msgspec.Struct, kw_only=True):
    """The fold's whole state after the inbox record before `next_offset`."""

    next_offset: int = 0
    now: int = 0
    sequence: int = 0
    clockwork: Clockwork = msgspec.field(default_factory=Clockwork)
    jobs: dict[str, Job] = {}
    slots: dict[int, Slot] = {}
    mean_gpu_seconds: dict[str, float] = {}  # kind of task -> decayed mean of measured costs
    early_cancels: dict[str, EarlyCancel] = {}
    finished: dict[str, int] = {}  # job_id -> when it ended, oldest first: admission may repeat a StageReady


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
