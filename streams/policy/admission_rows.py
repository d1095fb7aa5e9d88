"""What admission keeps: one segment for each batch of decisions, and one row for each held job.

A segment is the commit of a batch: nothing that follows from a decision is sent to the scheduler before its segment is
written, and a record that comes again after a crash is answered from it. Rows are MessagePack arrays.
"""

from typing import Any, Final

import msgspec

RELEASED: Final = "released"  # a held job went to the scheduler
CANCELED: Final = "canceled"  # a held job ended here
CLOSED: Final = "closed"  # the scheduler told that the job has ended
EARLY_CANCEL: Final = "early_cancel"  # its user canceled a job that has not come yet


class BucketRow(msgspec.Struct, array_like=True, frozen=True):
    """tokens at at_ms; negative when some are reserved."""

    tokens: float
    at_ms: int | None


class UserRow(msgspec.Struct, array_like=True, frozen=True):
    """Token buckets of a user and of its API keys (by key_id). The greatest revision is the newest."""

    revision: int
    bucket: BucketRow
    keys: dict[str, BucketRow] = {}


class Accepted(msgspec.Struct, array_like=True, frozen=True):
    """A job that was taken. job: user_id/job_id; due_ms: until when it is held, None when it went on at once."""

    job: str
    fingerprint: bytes
    offset: int
    at_ms: int
    due_ms: int | None
    domain: str


class Refused(msgspec.Struct, array_like=True, frozen=True):
    """A request that was not; a record that comes again is refused with the same words."""

    offset: int
    at_ms: int
    code: str
    limit: str | None
    detail: str
    retry_after_ms: int | None


class End(msgspec.Struct, array_like=True, frozen=True):
    """Something that happened to a job after it was taken; kind: one of the constants above."""

    job: str
    kind: str
    at_ms: int
    reason: str = ""


class Segment(msgspec.Struct, array_like=True):
    """The decisions of one batch of a topic's records in one partition, or several such put together."""

    topic: str
    oldest_ms: int
    newest_ms: int
    accepted: list[Accepted] = []
    refused: list[Refused] = []
    ends: list[End] = []
    users: dict[str, UserRow] = {}

    def __len__(self) -> int:
        return len(self.accepted) + len(self.refused) + len(self.ends) + len(self.users)


class Held(msgspec.Struct, array_like=True):
    """A job that waits here.

    job: user_id/job_id; topic, partition, offset: of its request; why: run_at, debounce or rate_limit; ready: its
    StageReady, whose deadlines are set anew at its release.
    """

    job: str
    topic: str
    partition: int
    offset: int
    at_ms: int
    due_ms: int
    why: str
    workflow: str
    ready: dict[str, Any]
    start_within_seconds: float | None = None
    finish_within_seconds: float | None = None
    debounce_key: str | None = None
    paused: bool = False

    @property
    def user_id(self) -> str:
        """Whose job it is."""
        return str(self.ready["user_id"])


def encode_row(row: Segment | Held) -> bytes:
    """A row as the changelog has it."""
    return msgspec.msgpack.encode(row)


def decode_segment(data: bytes) -> Segment:
    """Raises msgspec.DecodeError for bytes that are no segment (rows of version 0.1 are none)."""
    return msgspec.msgpack.decode(data, type=Segment)


def decode_held(data: bytes) -> Held:
    """Raises msgspec.DecodeError for bytes that are no held job."""
    return msgspec.msgpack.decode(data, type=Held)
