"""What fills the read model: requests.*, commands and jobs.events, read on from the model's own offsets.

Records go into the read model in batches, and then the event loop is told which jobs changed. While few come, each is
fetched the moment it is there, for its user's stream; while many come, the broker gathers them for a moment, because
a fetch costs more than the record that it brings.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, Message, TopicPartition

from gateway.heads import HeadReader
from gateway.ids import SIGNATURE_HEADER, is_job_id, signature
from gateway.reading import Reader, key_of
from gateway.readmodel import ReadModel
from gateway.tables import ROW_RANKS, Batch, FiledEvent, JobKey, Place
from schemas.codec import Codec
from schemas.pipelines import WORKFLOWS
from schemas.registry import Registry
from schemas.topics import COMMANDS, EVENTS, requests_topic
from streams.kafka.producer import header
from streams.kafka.settings import KafkaSettings

log = structlog.get_logger(__name__)

REQUESTS: Final = tuple(requests_topic(workflow) for workflow in WORKFLOWS)
_TOPICS: Final = (*REQUESTS, COMMANDS, EVENTS)
# Commits are this far apart at least: the first record after a pause is written at once, a burst in few pieces.
_COMMIT_SECONDS: Final = 0.01
_MAX_PENDING: Final = 2_000
# So many old jobs are forgotten in one go, so often, and so soon again while there are more.
_PRUNE_JOBS: Final = 500
_PRUNE_SECONDS: Final = 60.0
_PRUNE_MORE_SECONDS: Final = 0.5
# How a fetch waits at the broker. In bulk a record comes up to 25 ms later, and a fetch brings several: a
# prompt reader costs the broker a fetch a record, which others then wait for.
_PROMPT: Final[dict[str, Any]] = {}
_BULK: Final[dict[str, Any]] = {"fetch.min.bytes": 65_536, "fetch.wait.max.ms": 25}
# Records a second from which on, and below which, reading changes; measured over so long.
BULK_RATE: Final = 120.0
PROMPT_RATE: Final = 60.0
WINDOW_SECONDS: Final = 1.0


class Flow:
    """Whether records come so fast that they are read in bulk; pure, time is an argument (monotonic seconds)."""

    def __init__(self, now: float) -> None:
        self.bulk = False
        self._since = now
        self._records = 0

    def turned(self, records: int, now: float) -> bool:
        """Takes note of records; whether `bulk` has just changed."""
        self._records += records
        elapsed = now - self._since
        if elapsed < WINDOW_SECONDS:
            return False
        rate = self._records / elapsed
        self._since, self._records = now, 0
        bulk = rate >= (PROMPT_RATE if self.bulk else BULK_RATE)
        turned, self.bulk = bulk != self.bulk, bulk
        return turned


class FeedListener(Protocol):
    """Who is told; every call comes on the event loop, in the order of reading."""

    def on_changed(self, jobs: dict[JobKey, bool]) -> None:
        """Jobs whose rows the read model has just committed; True for those with events among them."""

    def on_caught_up(self) -> None:
        """Every partition was read to its end once."""

    def on_failed(self, error: Exception) -> None:
        """A reader has ended and will not come back."""


@dataclass(frozen=True, kw_only=True)
class FeedSettings:
    """name: of the client; server_key: commands are shown when a gateway of this installation has signed them;
    keep_ms: how long jobs that have ended are known, by now_ms."""

    kafka: KafkaSettings
    name: str
    server_key: bytes = field(repr=False)
    keep_ms: int
    now_ms: Callable[[], int]


class Feed(Reader):
    """The thread that fills the read model."""

    def __init__(
        self, settings: FeedSettings, codec: Codec, registry: Registry, read_model: ReadModel, listener: FeedListener
    ) -> None:
        super().__init__(settings.kafka, settings.name, _TOPICS, listener.on_failed)
        self._server_key = settings.server_key
        self._keep_ms = settings.keep_ms
        self._now_ms = settings.now_ms
        self._codec = codec
        self._heads = HeadReader(registry)
        self._read_model = read_model
        self._listener = listener
        self._next: dict[Place, int] = {}
        self._behind: set[Place] = set()
        self._pending = Batch()
        self._ends: list[Place] = []
        self._last_commit = 0.0
        self._next_prune = 0.0

    def _read(self) -> None:
        consumer = self._consumer(_PROMPT)
        try:
            places, cluster_id = self._wait_for_topics(consumer)
            if self._stop.is_set():
                return
            stored = self._read_model.open(cluster_id)
            self._next = {place: stored.get(place, OFFSET_BEGINNING) for place in places}
            self._behind = set(places)
            self._assign(consumer)
            self.connected = True
            flow = Flow(time.monotonic())
            while not self._stop.is_set():
                records = self._turn(consumer)
                if not self._behind and flow.turned(records, time.monotonic()):
                    # Settings of fetches are fixed for a consumer's life; what it had in hand is fetched again.
                    consumer.close()
                    consumer = self._consumer(_BULK if flow.bulk else _PROMPT)
                    self._assign(consumer)
                    log.info("reading turned", bulk=flow.bulk)
            self._commit()
        finally:
            consumer.close()

    def _assign(self, consumer: Consumer) -> None:
        consumer.assign([TopicPartition(*place, offset) for place, offset in self._next.items()])

    def _turn(self, consumer: Consumer) -> int:
        """One poll and perhaps a commit; returns how many records came."""
        due = self._last_commit + _COMMIT_SECONDS - time.monotonic()
        waits = bool(self._pending.offsets or self._ends)
        records = 0
        for message, place in self._sorted(self._poll(consumer, max(0.0, due) if waits else 0.25), self._ends):
            self._next[place] = self._pending.offsets[place] = (message.offset() or 0) + 1
            records += 1
        full = len(self._pending.events) + len(self._pending.requests) >= _MAX_PENDING
        if full or time.monotonic() - self._last_commit >= _COMMIT_SECONDS:
            self._commit()
        return records

    def _commit(self) -> None:
        """Writes what is pending and tells of it; then of ends that were reached."""
        if self._pending.offsets:
            batch, self._pending = self._pending, Batch()
            changed = self._read_model.apply(batch)
            self._last_commit = time.monotonic()
            if changed:
                self._tell(self._listener.on_changed, changed)
        self._prune()
        if self._ends:
            if self._behind.intersection(self._ends):
                self._behind.difference_update(self._ends)
                if not self._behind:
                    log.info("caught up")
                    self._tell(self._listener.on_caught_up)
            self._ends.clear()

    def _prune(self) -> None:
        """Forgets old jobs, a few at a time and not while there is a past to catch up with."""
        if self._behind or time.monotonic() < self._next_prune:
            return
        gone = self._read_model.prune(self._now_ms() - self._keep_ms, _PRUNE_JOBS)
        self._next_prune = time.monotonic() + (_PRUNE_MORE_SECONDS if gone == _PRUNE_JOBS else _PRUNE_SECONDS)
        if gone:
            log.info("old jobs forgotten", jobs=gone)

    def _take(self, message: Message, place: Place) -> None:
        topic, value, offset = place[0], message.value(), message.offset() or 0
        if topic == EVENTS:
            head = self._heads.read(value)
            if head.transition not in ROW_RANKS:
                raise ValueError(head.transition)
            self._pending.events.append(FiledEvent(head, value or b"", place[1], offset))
        elif topic == COMMANDS:
            record = self._codec.decode_strict(value, "command")
            signed = header(message, SIGNATURE_HEADER) == signature(self._server_key, value or b"")
            if signed and key_of(message) == record["user_id"]:
                self._pending.commands.append(record)
        else:
            record = self._codec.decode_strict(value, "job_requested")
            # Anybody may write here; admission refuses what is not under its user's key, so it makes no job.
            if key_of(message) == record["user_id"] and is_job_id(record["job_id"]):
                self._pending.requests.append((record, offset))
