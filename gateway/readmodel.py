"""The gateway's read model: jobs and their events in SQLite, filled from requests.* and jobs.events.

Rows and the offsets they came from are written in one transaction, so a kill -9 at any point loses and doubles
nothing. Every statement keeps the greatest rank, so order and repeats do not matter. A file that is lost, damaged, of
another schema or of another Kafka cluster is built anew from Kafka.

One thread writes; any number of threads read, each with a connection of its own (WAL: nobody waits for the other).
"""

import sqlite3
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from gateway.fold import REQUEST_RANK, StoredEvent
from schemas.codec import Record
from schemas.jobs import JobState, Transition, state_after

log = structlog.get_logger(__name__)

Place = tuple[str, int]  # topic, partition
JobKey = tuple[str, str]  # user_id, job_id

_SCHEMA_VERSION: Final = 1
_EVENT_FIELDS: Final = StoredEvent.__struct_fields__
_EVENT_KEY: Final = ("user_id", "job_id", "event_id")
_EVENT_COLUMNS: Final = ", ".join(f'"{name}"' for name in _EVENT_FIELDS)
# The user is part of every key: another user's rows cannot be reached, whatever ids a producer makes up.
_SCHEMA: Final = f"""
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE offsets (topic TEXT, "partition" INTEGER, next INTEGER NOT NULL, PRIMARY KEY (topic, "partition"))
  WITHOUT ROWID;
CREATE TABLE jobs (
  user_id TEXT, job_id TEXT, workflow TEXT NOT NULL, pipeline_id TEXT NOT NULL, created_at INTEGER NOT NULL,
  state TEXT NOT NULL, queued_at INTEGER, rank INTEGER NOT NULL, place INTEGER NOT NULL,
  PRIMARY KEY (user_id, job_id)) WITHOUT ROWID;
CREATE INDEX jobs_by_time ON jobs (user_id, created_at, job_id);
CREATE INDEX jobs_by_state ON jobs (user_id, state, created_at, job_id);
CREATE TABLE events ({_EVENT_COLUMNS}, PRIMARY KEY (user_id, job_id, event_id)) WITHOUT ROWID;
PRAGMA user_version = {_SCHEMA_VERSION};
"""
_PUT_JOB: Final = """
INSERT INTO jobs (user_id, job_id, workflow, pipeline_id, created_at, state, queued_at, rank, place)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (user_id, job_id) DO UPDATE SET
  workflow = excluded.workflow, pipeline_id = excluded.pipeline_id, created_at = excluded.created_at,
  state = excluded.state, queued_at = excluded.queued_at,
  rank = excluded.rank, place = excluded.place
WHERE excluded.rank > rank OR (excluded.rank = rank AND excluded.place < place)
"""
_PUT_EVENT: Final = f"""
INSERT INTO events ({_EVENT_COLUMNS}) VALUES ({", ".join("?" * len(_EVENT_FIELDS))})
ON CONFLICT (user_id, job_id, event_id) DO UPDATE SET
  {", ".join(f'"{name}" = excluded."{name}"' for name in _EVENT_FIELDS if name not in _EVENT_KEY)}
WHERE excluded."offset" < "offset"
"""  # noqa: S608 (names of our own fields only)
_PUT_OFFSET: Final = """
INSERT INTO offsets (topic, "partition", next) VALUES (?, ?, ?)
ON CONFLICT (topic, "partition") DO UPDATE SET next = excluded.next
"""
_JOB_COLUMNS: Final = "user_id, job_id, workflow, pipeline_id, created_at, state, queued_at"


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


@dataclass(frozen=True, kw_only=True)
class StoredJob:
    """A job with its distinct events in the order of jobs.events.

    accepted: admission has accepted it, though its first event has not been read yet; queued_before: how many of its
    user's queued jobs go first, where that was asked for.
    """

    row: JobRow
    events: tuple[StoredEvent, ...]
    accepted: bool = False
    queued_before: int = 0


@dataclass(kw_only=True)
class Batch:
    """What one poll brought; requests with their offsets, and the next offset of each partition that was read."""

    requests: list[tuple[Record, int]] = field(default_factory=list)
    events: list[StoredEvent] = field(default_factory=list)
    offsets: dict[Place, int] = field(default_factory=dict)


class ReadModel:
    """See the module. open() and apply() belong to the writer's thread; the rest may be called from any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: sqlite3.Connection | None = None
        self._local = threading.local()
        self._readers: list[sqlite3.Connection] = []
        self._lock = threading.Lock()

    def open(self, cluster_id: str) -> dict[Place, int]:
        """Opens the file, or makes a new one, and returns from where each partition is to be read on."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._writer = self._open_existing(cluster_id)
        except sqlite3.DatabaseError as error:
            log.warning("read model is damaged and will be built anew", error=str(error))
        if self._writer is None:
            self._remove()
            self._writer = self._connect()
            self._writer.executescript(_SCHEMA)
            self._writer.execute("INSERT INTO meta VALUES ('cluster_id', ?)", (cluster_id,))
            self._writer.commit()
        rows = self._writer.execute('SELECT topic, "partition", next FROM offsets')
        return {(topic, partition): following for topic, partition, following in rows}

    def apply(self, batch: Batch) -> dict[JobKey, bool]:
        """Writes a batch in one transaction; returns the jobs that it concerns, True for those with events in it."""
        assert self._writer is not None, "open() comes first"
        requests = [_request_row(record, offset) for record, offset in batch.requests]
        with self._writer:
            self._writer.executemany(_PUT_JOB, requests)
            self._writer.executemany(_PUT_EVENT, [_event_values(event) for event in batch.events])
            self._writer.executemany(_PUT_JOB, [_event_row(event) for event in batch.events])
            places = [(topic, partition, following) for (topic, partition), following in batch.offsets.items()]
            self._writer.executemany(_PUT_OFFSET, places)
        changed = {(record["user_id"], record["job_id"]): False for record, _ in batch.requests}
        changed.update({(event.user_id, event.job_id): True for event in batch.events})
        return changed

    def job(self, user_id: str, job_id: str, *, with_place: bool = False) -> StoredJob | None:
        """A user's job, None when the user has no such job; with_place counts the queued jobs before it."""
        reader = self._reader()
        with reader:
            reader.execute("BEGIN")  # both statements see the same commit
            found = reader.execute(
                f"SELECT {_JOB_COLUMNS} FROM jobs WHERE user_id = ? AND job_id = ?",  # noqa: S608
                (user_id, job_id),
            ).fetchone()
            if found is None:
                return None
            row = _job_row(found)
            queued = with_place and row.queued_at is not None
            return StoredJob(
                row=row,
                events=tuple(self._events(user_id, [job_id])),
                queued_before=self._queued_before(row) if queued else 0,
            )

    def jobs(
        self, user_id: str, *, limit: int, before: tuple[int, str] | None = None, state: str | None = None
    ) -> list[StoredJob]:
        """A user's newest jobs, those before (created_at, job_id) only."""
        where, values = ["user_id = ?"], [user_id]
        if state is not None:
            where.append("state = ?")
            values.append(state)
        if before is not None:
            where.append("(created_at, job_id) < (?, ?)")
            values += before  # type: ignore[arg-type]
        reader = self._reader()
        with reader:
            reader.execute("BEGIN")
            rows = reader.execute(
                f"SELECT {_JOB_COLUMNS} FROM jobs WHERE {' AND '.join(where)} "  # noqa: S608
                "ORDER BY created_at DESC, job_id DESC LIMIT ?",
                (*values, limit),
            ).fetchall()
            found = [_job_row(row) for row in rows]
            events: dict[str, list[StoredEvent]] = {row.job_id: [] for row in found}
            for event in self._events(user_id, list(events)):
                events[event.job_id].append(event)
        return [StoredJob(row=row, events=tuple(events[row.job_id])) for row in found]

    def close(self) -> None:
        """Closes every connection; no other thread may use the read model any more."""
        for connection in [*self._readers, *([self._writer] if self._writer else [])]:
            connection.close()
        self._readers.clear()
        self._writer = None

    def _queued_before(self, row: JobRow) -> int:
        (count,) = (
            self._reader()
            .execute(
                "SELECT count(*) FROM jobs WHERE user_id = ? AND state = ? AND (queued_at, job_id) < (?, ?)",
                (row.user_id, JobState.QUEUED.value, row.queued_at, row.job_id),
            )
            .fetchone()
        )
        return int(count)

    def _events(self, user_id: str, job_ids: Sequence[str]) -> Iterable[StoredEvent]:
        if not job_ids:
            return []
        rows = self._reader().execute(
            f"SELECT {_EVENT_COLUMNS} FROM events WHERE user_id = ? AND job_id IN ({', '.join('?' * len(job_ids))}) "  # noqa: S608
            'ORDER BY "offset"',
            (user_id, *job_ids),
        )
        return [_event_of(row) for row in rows.fetchall()]

    def _open_existing(self, cluster_id: str) -> sqlite3.Connection | None:
        if not self._path.exists():
            return None
        connection = self._connect()
        try:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            found = None
            if version == _SCHEMA_VERSION:
                (found,) = connection.execute("SELECT value FROM meta WHERE name = 'cluster_id'").fetchone()
            if found == cluster_id:
                return connection
        except BaseException:
            connection.close()
            raise
        connection.close()
        log.info("read model belongs to another cluster or version and is built anew", cluster_id=cluster_id)
        return None

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=30, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        # A power cut may take the last commits, but never the file: offsets go back with the rows, Kafka has them.
        connection.execute("PRAGMA synchronous = NORMAL")
        return connection

    def _remove(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self._path}{suffix}").unlink(missing_ok=True)

    def _reader(self) -> sqlite3.Connection:
        found: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if found is None:
            found = sqlite3.connect(f"file:{self._path}?mode=ro", uri=True, timeout=30, check_same_thread=False)
            self._local.connection = found
            with self._lock:
                self._readers.append(found)
        return found


def _request_row(record: Record, offset: int) -> tuple[Any, ...]:
    return (
        record["user_id"],
        record["job_id"],
        record["workflow"],
        record["pipeline_id"],
        record["created_at"],
        JobState.SUBMITTED.value,
        None,
        REQUEST_RANK,
        offset,
    )


def _event_row(event: StoredEvent) -> tuple[Any, ...]:
    transition = Transition(event.transition)
    return (
        event.user_id,
        event.job_id,
        event.workflow,
        event.pipeline_id,
        event.created_at,
        state_after(transition).value,
        event.at if transition is Transition.QUEUED else None,
        event.rank,
        event.offset,
    )


def _event_values(event: StoredEvent) -> list[Any]:
    values = [getattr(event, name) for name in _EVENT_FIELDS]
    values[_ARTEFACTS] = msgspec.json.encode(event.artefacts) if event.artefacts else None
    return values


def _event_of(row: Sequence[Any]) -> StoredEvent:
    values = dict(zip(_EVENT_FIELDS, row, strict=True))
    stored = values["artefacts"]
    values["artefacts"] = msgspec.json.decode(stored) if stored else []
    return StoredEvent(**values)


def _job_row(row: Sequence[Any]) -> JobRow:
    user_id, job_id, workflow, pipeline_id, created_at, state, queued_at = row
    return JobRow(
        user_id=user_id,
        job_id=job_id,
        workflow=workflow,
        pipeline_id=pipeline_id,
        created_at=created_at,
        state=state,
        queued_at=queued_at,
    )


_ARTEFACTS: Final = _EVENT_FIELDS.index("artefacts")
