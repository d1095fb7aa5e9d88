"""The read model's tables, the statements that fill them, and records as their rows.

A job's row changes with the job's state only, so its rank is coarser than that of the events; the rest of a job is in
its events.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from gateway.fold import StoredEvent, stored_event
from gateway.heads import Head, HeadReader
from schemas.codec import Codec, Record
from schemas.jobs import TERMINAL_STATES, JobState, Transition, rank, state_after

Place = tuple[str, int]  # topic, partition
JobKey = tuple[str, str]  # user_id, job_id

STANDARD: Final = "standard"
SCHEMA_VERSION: Final = 2
# The user is part of a job's key: another user's rows cannot be reached, whatever ids a producer makes up. Events have
# the job's number, so that those of jobs under way lie together, in few pages.
SCHEMA: Final = f"""
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE offsets (topic TEXT, "partition" INTEGER, next INTEGER NOT NULL, PRIMARY KEY (topic, "partition"))
  WITHOUT ROWID;
CREATE TABLE jobs (
  id INTEGER PRIMARY KEY, user_id TEXT NOT NULL, job_id TEXT NOT NULL, workflow TEXT NOT NULL,
  pipeline_id TEXT NOT NULL, created_at INTEGER NOT NULL, state TEXT NOT NULL, queued_at INTEGER, lane TEXT,
  priority INTEGER, retry_of TEXT, ended_at INTEGER, rank INTEGER NOT NULL, place INTEGER NOT NULL,
  UNIQUE (job_id, user_id));
CREATE INDEX jobs_by_time ON jobs (user_id, created_at, job_id);
CREATE INDEX jobs_by_state ON jobs (user_id, state, created_at);
CREATE INDEX jobs_queued ON jobs (user_id, lane, priority, queued_at, job_id) WHERE state = '{JobState.QUEUED}';
CREATE INDEX jobs_ended ON jobs (ended_at) WHERE ended_at IS NOT NULL;
CREATE TABLE events (
  id INTEGER PRIMARY KEY, job INTEGER NOT NULL, "partition" INTEGER NOT NULL, "offset" INTEGER NOT NULL,
  value BLOB NOT NULL);
CREATE INDEX events_by_job ON events (job);
CREATE TABLE controls (
  user_id TEXT NOT NULL, job_id TEXT NOT NULL, priority INTEGER, paused INTEGER, PRIMARY KEY (user_id, job_id))
  WITHOUT ROWID;
PRAGMA user_version = {SCHEMA_VERSION};
"""
PUT_JOB: Final = """
INSERT INTO jobs
  (user_id, job_id, workflow, pipeline_id, created_at, state, queued_at, lane, priority, retry_of, ended_at, rank,
   place)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (job_id, user_id) DO UPDATE SET
  workflow = excluded.workflow, pipeline_id = excluded.pipeline_id, created_at = excluded.created_at,
  state = excluded.state, queued_at = excluded.queued_at,
  lane = coalesce(excluded.lane, lane), priority = coalesce(excluded.priority, priority),
  retry_of = coalesce(excluded.retry_of, retry_of), ended_at = excluded.ended_at,
  rank = excluded.rank, place = excluded.place
WHERE excluded.rank > rank OR (excluded.rank = rank AND excluded.place < place)
"""
PUT_EVENT: Final = """
INSERT INTO events (job, "partition", "offset", value) VALUES (?, ?, ?, ?)
"""
PUT_OFFSET: Final = """
INSERT INTO offsets (topic, "partition", next) VALUES (?, ?, ?)
ON CONFLICT (topic, "partition") DO UPDATE SET next = excluded.next
"""
_JOB_FIELDS: Final = (
    "user_id",
    "job_id",
    "workflow",
    "pipeline_id",
    "created_at",
    "state",
    "queued_at",
    "lane",
    "priority",
    "retry_of",
)
SELECT_JOBS: Final = f"""
SELECT jobs.id, {", ".join(f"jobs.{name}" for name in _JOB_FIELDS)}, controls.priority, controls.paused
FROM jobs LEFT JOIN controls ON controls.user_id = jobs.user_id AND controls.job_id = jobs.job_id
"""  # noqa: S608 (names of our own fields only)
_PUT_PRIORITY: Final = """
INSERT INTO controls (user_id, job_id, priority) VALUES (?, ?, ?)
ON CONFLICT (user_id, job_id) DO UPDATE SET priority = excluded.priority
"""
_PUT_PAUSED: Final = """
INSERT INTO controls (user_id, job_id, paused) VALUES (?, ?, ?)
ON CONFLICT (user_id, job_id) DO UPDATE SET paused = excluded.paused
"""
_PAUSE_ALL: Final = """
INSERT INTO controls (user_id, job_id, paused)
SELECT user_id, job_id, 1 FROM jobs WHERE user_id = ? AND state IN ('held', 'queued')
ON CONFLICT (user_id, job_id) DO UPDATE SET paused = excluded.paused
"""
_RESUME_ALL: Final = "UPDATE controls SET paused = 0 WHERE user_id = ? AND paused = 1"
# Ranks of rows, coarser than those of events: a row changes with the job's state only. A request ranks below all.
_REQUEST_RANK: Final = -1
_FINAL_RANK: Final = 1_000


def _row_rank(transition: Transition) -> int | None:
    """The rank of the rows that this transition makes; None where it depends on the attempt."""
    state = state_after(transition)
    if rank(transition, 0, 0).final:
        return _FINAL_RANK
    if state is JobState.RUNNING:
        return rank(Transition.STARTED, 0, 0).phase
    return rank(transition, 0, 0).phase if state is JobState.QUEUED else None


ROW_RANKS: Final = {transition.value: _row_rank(transition) for transition in Transition}


@dataclass(frozen=True, kw_only=True)
class JobRow:
    """A job as the list knows it; times in ms since 1970."""

    user_id: str
    job_id: str
    workflow: str
    pipeline_id: str
    created_at: int
    state: str
    queued_at: int | None
    lane: str | None = None
    priority: int | None = None
    retry_of: str | None = None


@dataclass(frozen=True, kw_only=True)
class StoredJob:
    """A job with its distinct events in the order of jobs.events.

    accepted: admission has accepted it, though its first event has not been read yet; held_until: what it said of a
    held one then; queued_before: how many of its user's queued jobs of its lane go first, where that was asked for;
    priority, paused: as the user's newest command has them, None where there was none.
    """

    row: JobRow
    events: tuple[StoredEvent, ...]
    accepted: bool = False
    held_until: int | None = None
    queued_before: int = 0
    priority: int | None = None
    paused: bool | None = None


class FiledEvent(NamedTuple):
    """A JobEvent as it came, with its place in jobs.events."""

    head: Head
    value: bytes
    partition: int
    offset: int


@dataclass(kw_only=True)
class Batch:
    """What one poll brought; requests with their offsets, and the next offset of each partition that was read."""

    requests: list[tuple[Record, int]] = field(default_factory=list)
    events: list[FiledEvent] = field(default_factory=list)
    commands: list[Record] = field(default_factory=list)
    offsets: dict[Place, int] = field(default_factory=dict)


def lane_of(request: Record) -> str:
    """The lane of a JobRequested, as admission chooses it where none is named."""
    return str(request["lane"] or ("interactive" if request["quality"] == "draft" else STANDARD))


def request_row(record: Record, offset: int) -> tuple[Any, ...]:
    return (
        record["user_id"],
        record["job_id"],
        record["workflow"],
        record["pipeline_id"],
        record["created_at"],
        JobState.SUBMITTED.value,
        None,
        lane_of(record),
        record["priority"],
        record["retry_of"],
        None,
        _REQUEST_RANK,
        offset,
    )


def outranks(known: Sequence[int], other: Sequence[int]) -> bool:
    """Whether a row of the first rank and place stays as it is when the second comes."""
    return known[0] > other[0] or (known[0] == other[0] and known[1] <= other[1])


def event_row(codec: Codec, event: FiledEvent, ranked: int | None) -> tuple[Any, ...]:
    """An event as a row of `jobs`; ranked: from ROW_RANKS. Raises CodecError, ValueError.

    Only events that tell the lane, or whose rank needs the attempt, are decoded whole.
    """
    head = event.head
    transition = Transition(head.transition)
    lane = priority = retry_of = queued_at = None
    at, created_at = HeadReader.times(event.value, head)
    if ranked is None or transition is Transition.QUEUED:
        stored = stored_event(codec.decode(event.value, "job_event"), event.partition, event.offset)
        lane, priority, retry_of = stored.lane, stored.priority, stored.retry_of
        queued_at = at if transition is Transition.QUEUED else None
        ranked = stored.rank if ranked is None else ranked
    state = state_after(transition)
    return (
        head.user_id,
        head.job_id,
        head.workflow,
        head.pipeline_id,
        created_at,
        state.value,
        queued_at,
        lane,
        priority,
        retry_of,
        at if state in TERMINAL_STATES else None,
        ranked,
        event.offset,
    )


def job_of(values: Sequence[Any]) -> tuple[int, StoredJob]:
    """A row of SELECT_JOBS: the job's number, and the job without its events."""
    number, *row, priority, paused = values
    return number, StoredJob(
        row=JobRow(**dict(zip(_JOB_FIELDS, row, strict=True))),
        events=(),
        priority=priority,
        paused=None if paused is None else bool(paused),
    )


def put_command(writer: sqlite3.Connection, command: Record) -> None:
    """Keeps what a command asks for, so that its user sees it; whether it still applies is the scheduler's to say."""
    kind, who = command["kind"], (command["user_id"], command["job_id"])
    if kind == "reprioritise" and command["priority"] is not None:
        writer.execute("UPDATE jobs SET priority = ? WHERE user_id = ? AND job_id = ?", (command["priority"], *who))
        writer.execute(_PUT_PRIORITY, (*who, command["priority"]))
    elif kind in ("pause", "resume"):
        paused = int(kind == "pause")
        if command["job_id"]:
            writer.execute(_PUT_PAUSED, (*who, paused))
        else:
            writer.execute(_PAUSE_ALL if paused else _RESUME_ALL, (command["user_id"],))
