"""The gateway's read model: jobs and their events in SQLite, filled from requests.* and jobs.events.

Rows and the offsets they came from are written in one transaction, so a kill -9 at any point loses and doubles
nothing. A job's row keeps what ranks highest and events are told apart by their ids when they are read, so order and
repeats do not matter. Events are kept as the bytes that came: most are never asked for. A file that is lost, damaged,
of another schema or of another Kafka cluster is built anew from Kafka.

One thread writes; any number of threads read, each with a connection of its own (WAL: nobody waits for the other).
"""

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import structlog

from gateway.fold import StoredEvent, distinct, stored_event
from gateway.tables import (
    PUT_EVENT,
    PUT_JOB,
    PUT_OFFSET,
    ROW_RANKS,
    SCHEMA,
    SCHEMA_VERSION,
    SELECT_JOBS,
    Batch,
    FiledEvent,
    JobKey,
    JobRow,
    Place,
    StoredJob,
    event_row,
    job_of,
    outranks,
    put_command,
    request_row,
)
from schemas.codec import Codec
from schemas.errors import CodecError
from schemas.jobs import JobState

log = structlog.get_logger(__name__)

_DEFAULT_PRIORITY: Final = 3
_KNOWN_JOBS: Final = 50_000


class _Known(NamedTuple):
    """A job's row as last written: its rank, the place that it came from, the job's number."""

    rank: int
    place: int
    number: int


class ReadModel:
    """See the module. open() and apply() belong to the writer's thread; the rest may be called from any thread."""

    def __init__(self, path: Path, codec: Codec) -> None:
        self._path = path
        self._codec = codec
        # The rank and place of rows as last written: most events change nothing in their job's row.
        self._known: dict[JobKey, _Known] = {}
        self._writer: sqlite3.Connection | None = None
        self._local = threading.local()
        self._readers: list[sqlite3.Connection] = []
        self._lock = threading.Lock()

    def open(self, cluster_id: str) -> dict[Place, int]:
        """Opens the file, or makes a new one, and returns from where each partition is to be read on."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._known.clear()
        try:
            self._writer = self._open_existing(cluster_id)
        except sqlite3.DatabaseError as error:
            log.warning("read model is damaged and will be built anew", error=str(error))
        if self._writer is None:
            self._remove()
            self._writer = self._connect()
            self._writer.executescript(SCHEMA)
            self._writer.execute("INSERT INTO meta VALUES ('cluster_id', ?)", (cluster_id,))
            self._writer.commit()
        rows = self._writer.execute('SELECT topic, "partition", next FROM offsets')
        return {(topic, partition): following for topic, partition, following in rows}

    def apply(self, batch: Batch) -> dict[JobKey, bool]:
        """Writes a batch in one transaction; returns the jobs that it concerns, True for those with events in it.

        An event whose rank cannot be told changes no row.
        """
        assert self._writer is not None, "open() comes first"
        requests = [request_row(record, offset) for record, offset in batch.requests]
        written, rows = self._event_rows(batch.events)
        with self._writer:
            self._writer.executemany(PUT_JOB, requests)
            self._writer.executemany(PUT_JOB, rows)
            numbers = self._numbers(batch.events)
            self._writer.executemany(PUT_EVENT, _filed(batch.events, numbers))
            for command in batch.commands:
                put_command(self._writer, command)
            places = [(topic, partition, following) for (topic, partition), following in batch.offsets.items()]
            self._writer.executemany(PUT_OFFSET, places)
        self._remember(written, numbers)
        changed = {(record["user_id"], record["job_id"]): False for record, _ in batch.requests}
        changed.update({(c["user_id"], c["job_id"]): False for c in batch.commands})
        changed.update({(event.head.user_id, event.head.job_id): True for event in batch.events})
        return changed

    def job(self, user_id: str, job_id: str, *, with_place: bool = False) -> StoredJob | None:
        """A user's job, None when the user has no such job; with_place counts the queued jobs before it."""
        reader = self._reader()
        with reader:
            reader.execute("BEGIN")  # all statements see the same commit
            found = reader.execute(
                f"{SELECT_JOBS} WHERE jobs.user_id = ? AND jobs.job_id = ?", (user_id, job_id)
            ).fetchone()
            if found is None:
                return None
            number, job = job_of(found)
            queued = with_place and job.row.state == JobState.QUEUED
            before = self._queued_before(job.row) if queued else 0
            events = self._events([number]).get(number, ())
        return replace(job, events=tuple(events), queued_before=before)

    def jobs(
        self, user_id: str, *, limit: int, before: tuple[int, str] | None = None, state: str | None = None
    ) -> list[StoredJob]:
        """A user's newest jobs, those before (created_at, job_id) only."""
        where, values = ["jobs.user_id = ?"], [user_id]
        if state is not None:
            where.append("jobs.state = ?")
            values.append(state)
        if before is not None:
            where.append("(jobs.created_at, jobs.job_id) < (?, ?)")
            values += before  # type: ignore[arg-type]
        reader = self._reader()
        with reader:
            reader.execute("BEGIN")
            rows = reader.execute(
                f"{SELECT_JOBS} WHERE {' AND '.join(where)} ORDER BY jobs.created_at DESC, jobs.job_id DESC LIMIT ?",
                (*values, limit),
            ).fetchall()
            found = [job_of(row) for row in rows]
            events = self._events([number for number, _ in found])
        return [replace(job, events=tuple(events.get(number, ()))) for number, job in found]

    def prune(self, ended_before_ms: int, limit: int) -> int:
        """Forgets jobs that ended before a time, `limit` at most; returns how many. Belongs to the writer's thread."""
        assert self._writer is not None, "open() comes first"
        with self._writer:
            rows = self._writer.execute(
                "SELECT id, user_id, job_id FROM jobs WHERE ended_at < ? LIMIT ?", (ended_before_ms, limit)
            ).fetchall()
            self._writer.executemany("DELETE FROM events WHERE job = ?", [row[:1] for row in rows])
            self._writer.executemany("DELETE FROM controls WHERE user_id = ? AND job_id = ?", [r[1:] for r in rows])
            self._writer.executemany("DELETE FROM jobs WHERE id = ?", [row[:1] for row in rows])
        for _, user_id, job_id in rows:
            self._known.pop((user_id, job_id), None)
        return len(rows)

    def close(self) -> None:
        """Closes every connection; no other thread may use the read model any more."""
        for connection in [*self._readers, *([self._writer] if self._writer else [])]:
            connection.close()
        self._readers.clear()
        self._writer = None

    def _event_rows(self, events: Sequence[FiledEvent]) -> tuple[dict[JobKey, tuple[int, int]], list[tuple[Any, ...]]]:
        """Rows of the events that outrank what their jobs' rows hold, the greatest of each job; and their ranks."""
        best: dict[JobKey, tuple[int, int]] = {}
        rows: dict[JobKey, tuple[Any, ...]] = {}
        for event in events:
            head = event.head
            key = (head.user_id, head.job_id)
            known = best.get(key) or self._known.get(key)
            ranked = ROW_RANKS[head.transition]
            if ranked is not None and known is not None and outranks(known, (ranked, event.offset)):
                continue
            try:
                found = event_row(self._codec, event, ranked)
            except (CodecError, ValueError) as reason:
                log.warning("event changes no row", offset=event.offset, reason=type(reason).__name__)
                continue
            place = found[-2], found[-1]
            if known is None or not outranks(known, place):
                best[key], rows[key] = place, found
        return best, list(rows.values())

    def _numbers(self, events: Sequence[FiledEvent]) -> dict[JobKey, int]:
        """The numbers of the events' jobs; none of one that no event that could be read has told of."""
        assert self._writer is not None
        found: dict[JobKey, int] = {}
        for key in {(event.head.user_id, event.head.job_id) for event in events}:
            known = self._known.get(key)
            if known is not None:
                found[key] = known.number
                continue
            row = self._writer.execute("SELECT id FROM jobs WHERE user_id = ? AND job_id = ?", key).fetchone()
            if row is not None:
                found[key] = row[0]
        return found

    def _remember(self, written: dict[JobKey, tuple[int, int]], numbers: dict[JobKey, int]) -> None:
        for key, (ranked, place) in written.items():
            self._known[key] = _Known(ranked, place, numbers[key])
        if len(self._known) > _KNOWN_JOBS:
            for key in list(self._known)[: len(self._known) - _KNOWN_JOBS // 2]:
                del self._known[key]

    def _queued_before(self, row: JobRow) -> int:
        """How many of the user's queued jobs of this lane go first: by priority, then by age."""
        (count,) = (
            self._reader()
            .execute(
                "SELECT count(*) FROM jobs WHERE user_id = ? AND state = 'queued' AND lane IS ? "
                "AND (priority, queued_at, job_id) < (?, ?, ?)",
                (row.user_id, row.lane, row.priority or _DEFAULT_PRIORITY, row.queued_at, row.job_id),
            )
            .fetchone()
        )
        return int(count)

    def _events(self, numbers: Sequence[int]) -> dict[int, list[StoredEvent]]:
        """The distinct events of some jobs, by the jobs' numbers."""
        if not numbers:
            return {}
        marks = ", ".join("?" * len(numbers))
        rows = self._reader().execute(
            f'SELECT job, "partition", "offset", value FROM events WHERE job IN ({marks})',  # noqa: S608
            numbers,
        )
        found: dict[int, list[StoredEvent]] = {}
        for number, partition, offset, value in rows.fetchall():
            try:
                event = stored_event(self._codec.decode(value, "job_event"), partition, offset)
            except (CodecError, ValueError) as reason:
                log.warning("event cannot be read", offset=offset, reason=type(reason).__name__)
                continue
            found.setdefault(number, []).append(event)
        return {number: distinct(events) for number, events in found.items()}

    def _open_existing(self, cluster_id: str) -> sqlite3.Connection | None:
        if not self._path.exists():
            return None
        connection = self._connect()
        try:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            found = None
            if version == SCHEMA_VERSION:
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
        # Keys are random: the pages of a few hundred thousand jobs stay in memory, and go to the file in longer runs.
        connection.execute("PRAGMA cache_size = -32768")
        connection.execute("PRAGMA wal_autocheckpoint = 4000")
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


def _filed(events: Sequence[FiledEvent], numbers: dict[JobKey, int]) -> Iterator[tuple[int, int, int, bytes]]:
    for event in events:
        number = numbers.get((event.head.user_id, event.head.job_id))
        if number is not None:
            yield number, event.partition, event.offset, event.value
