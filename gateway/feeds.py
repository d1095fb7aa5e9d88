"""What the gateway reads from Kafka, in one thread: a Consumer with every partition assigned by hand.

Durable topics (requests.*, commands, jobs.events) go on from the read model's offsets; control.tenants is read whole
at each start; answers, progress and load matter only while they are new, so they start at the end. What concerns live
state goes to the event loop in one call a poll, what is durable into the read model, and then the loop is told which
jobs changed.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import structlog
from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from gateway.heads import HeadReader
from gateway.ids import SIGNATURE_HEADER, is_job_id, signature
from gateway.readmodel import ReadModel
from gateway.tables import ROW_RANKS, Batch, FiledEvent, JobKey, Place
from schemas.codec import Codec, Record
from schemas.errors import CodecError
from schemas.pipelines import WORKFLOWS
from schemas.registry import Registry
from schemas.topics import ANSWERS, COMMANDS, EVENTS, LOAD, PROGRESS, TENANTS, requests_topic
from streams.kafka.consumer import consumer_config
from streams.kafka.producer import header
from streams.kafka.settings import KafkaSettings

log = structlog.get_logger(__name__)

REQUESTS: Final = tuple(requests_topic(workflow) for workflow in WORKFLOWS)
_DURABLE: Final = frozenset((*REQUESTS, COMMANDS, EVENTS))
_LIVE: Final = frozenset((ANSWERS, PROGRESS, LOAD))
_TOPICS: Final = (*REQUESTS, COMMANDS, EVENTS, TENANTS, ANSWERS, PROGRESS, LOAD)
_BATCH: Final = 500
_RETRY_SECONDS: Final = 0.3
# Commits are this far apart at least: the first record after a pause is written at once, a burst in few pieces.
_COMMIT_SECONDS: Final = 0.01
_MAX_PENDING: Final = 2_000
# So many old jobs are forgotten in one go, so often, and so soon again while there are more.
_PRUNE_JOBS: Final = 500
_PRUNE_SECONDS: Final = 60.0
_PRUNE_MORE_SECONDS: Final = 0.5
# Polls are this far apart at least, so that a stream of single records becomes batches: waking for each costs more
# than working on it. A record after a pause is not held up.
_PACE_SECONDS: Final = 0.003


@dataclass(kw_only=True)
class LiveBatch:
    """What one poll brought that lives in memory only; tenants by user, None for one who was removed."""

    answers: list[Record] = field(default_factory=list)
    progress: list[Record] = field(default_factory=list)
    loads: list[Record] = field(default_factory=list)
    tenants: list[tuple[str, Record | None]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.answers or self.progress or self.loads or self.tenants)


class FeedListener(Protocol):
    """Who is told; every call comes on the event loop, in the order of reading."""

    def on_live(self, batch: LiveBatch) -> None:
        """Records of live topics and of control.tenants."""

    def on_changed(self, jobs: dict[JobKey, bool]) -> None:
        """Jobs whose rows the read model has just committed; True for those with events among them."""

    def on_tenants_loaded(self) -> None:
        """All of control.tenants as it stood at the start has been handed over."""

    def on_caught_up(self) -> None:
        """Every durable partition was read to its end once."""

    def on_failed(self, error: Exception) -> None:
        """The thread has ended and will not come back."""


@dataclass(frozen=True, kw_only=True)
class FeedSettings:
    """name: of the client; server_key: commands are shown when a gateway of this installation has signed them;
    keep_ms: how long jobs that have ended are known, by now_ms."""

    kafka: KafkaSettings
    name: str
    server_key: bytes = field(repr=False)
    keep_ms: int
    now_ms: Callable[[], int]


class Feed:
    """The consumer thread. start() returns at once; the broker may come later."""

    def __init__(
        self, settings: FeedSettings, codec: Codec, registry: Registry, read_model: ReadModel, listener: FeedListener
    ) -> None:
        self._settings = settings.kafka
        self._name = settings.name
        self._server_key = settings.server_key
        self._keep_ms = settings.keep_ms
        self._now_ms = settings.now_ms
        self._next_prune = 0.0
        self._codec = codec
        self._heads = HeadReader(registry)
        self._read_model = read_model
        self._listener = listener
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)
        self._behind: set[Place] = set()
        self._tenants_behind: set[Place] = set()
        self._pending = Batch()
        self._ends: list[Place] = []
        self._last_commit = 0.0
        self._last_poll = 0.0
        self.connected = False

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Starts reading; the listener's calls go to this loop."""
        self._loop = loop
        self._thread.start()

    async def stop(self) -> None:
        """Ends the thread after the batch in hand."""
        self._stop.set()
        if self._thread.ident is not None:
            await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        consumer = Consumer(
            {
                **consumer_config(self._settings, f"meshyard-{self._name}"),
                "client.id": self._name,
                "enable.partition.eof": True,
            },
        )
        try:
            if self._assign(consumer):
                while not self._stop.is_set():
                    self._poll(consumer)
                self._commit()
        except Exception as error:  # the process cannot serve without its feed: it ends and is started again
            log.exception("feed failed")
            self._tell(self._listener.on_failed, error)
        finally:
            consumer.close()

    def _assign(self, consumer: Consumer) -> bool:
        """Waits for broker and topics and takes every partition. False when stopped meanwhile."""
        partitions, cluster_id = self._wait_for_topics(consumer)
        if self._stop.is_set():
            return False
        stored = self._read_model.open(cluster_id)
        assignment = []
        for topic, partition in partitions:
            if topic in _LIVE:
                offset = OFFSET_END
            else:
                offset = stored.get((topic, partition), OFFSET_BEGINNING)
                (self._tenants_behind if topic == TENANTS else self._behind).add((topic, partition))
            assignment.append(TopicPartition(topic, partition, offset))
        consumer.assign(assignment)
        self.connected = True
        return True

    def _wait_for_topics(self, consumer: Consumer) -> tuple[list[Place], str]:
        last_told = ""
        while not self._stop.is_set():
            try:
                metadata = consumer.list_topics(timeout=1)
            except KafkaException as error:
                missing = f"the broker does not answer: {error.args[0].str()}"
            else:
                found = metadata.topics
                absent = [t for t in _TOPICS if t not in found or found[t].error is not None]
                if not absent:
                    places = [(topic, number) for topic in _TOPICS for number in sorted(found[topic].partitions)]
                    return places, metadata.cluster_id or ""
                missing = f"topics are missing: {', '.join(absent)}"
            if missing != last_told:
                log.warning("waiting for Kafka", reason=missing)
                last_told = missing
            self._stop.wait(_RETRY_SECONDS)
        return [], ""

    def _poll(self, consumer: Consumer) -> None:
        now = time.monotonic()
        if now - self._last_poll < _PACE_SECONDS:
            time.sleep(self._last_poll + _PACE_SECONDS - now)
        due = self._last_commit + _COMMIT_SECONDS - time.monotonic()
        waits = bool(self._pending.offsets or self._ends)
        first = consumer.poll(max(0.0, due) if waits else 0.25)
        self._last_poll = time.monotonic()
        if first is not None:
            # consume() alone would wait for a full batch; so it only takes what lies there already.
            messages = [first, *consumer.consume(_BATCH, 0)]
            live = LiveBatch()
            self._ends += self._sort(messages, live, self._pending)
            if live:
                self._tell(self._listener.on_live, live)
        full = len(self._pending.events) + len(self._pending.requests) >= _MAX_PENDING
        if full or time.monotonic() - self._last_commit >= _COMMIT_SECONDS:
            self._commit()

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
            ends, self._ends = self._ends, []
            self._reached(ends)

    def _prune(self) -> None:
        """Forgets old jobs, a few at a time and not while there is a past to catch up with."""
        if self._behind or time.monotonic() < self._next_prune:
            return
        gone = self._read_model.prune(self._now_ms() - self._keep_ms, _PRUNE_JOBS)
        self._next_prune = time.monotonic() + (_PRUNE_MORE_SECONDS if gone == _PRUNE_JOBS else _PRUNE_SECONDS)
        if gone:
            log.info("old jobs forgotten", jobs=gone)

    def _sort(self, messages: Sequence[Message], live: LiveBatch, durable: Batch) -> list[Place]:
        """Takes records apart by topic; returns the partitions whose end was reached."""
        ends: list[Place] = []
        for message in messages:
            place = (message.topic() or "", message.partition() or 0)
            error = message.error()
            if error is not None:
                if error.code() == KafkaError._PARTITION_EOF:
                    ends.append(place)
                else:
                    log.warning("Kafka error", topic=place[0], partition=place[1], error=error.str())
                continue
            try:
                self._take(message, place, live, durable)
            except (CodecError, ValueError) as reason:
                # Whoever decides on the record sends it to jobs.dead; the read model goes on.
                log.warning(
                    "record skipped",
                    topic=place[0],
                    partition=place[1],
                    offset=message.offset(),
                    reason=getattr(reason, "code", type(reason).__name__),
                )
            if place[0] in _DURABLE:
                durable.offsets[place] = (message.offset() or 0) + 1
        return ends

    def _take(self, message: Message, place: Place, live: LiveBatch, durable: Batch) -> None:
        topic, value, offset = place[0], message.value(), message.offset() or 0
        if topic == EVENTS:
            head = self._heads.read(value)
            if head.transition not in ROW_RANKS:
                raise ValueError(head.transition)
            durable.events.append(FiledEvent(head, value or b"", place[1], offset))
        elif topic in REQUESTS:
            record = self._codec.decode_strict(value, "job_requested")
            # Anybody may write here; admission refuses what is not under its user's key, so it makes no job.
            if _key(message) == record["user_id"] and is_job_id(record["job_id"]):
                durable.requests.append((record, offset))
        elif topic == COMMANDS:
            record = self._codec.decode_strict(value, "command")
            signed = header(message, SIGNATURE_HEADER) == signature(self._server_key, value or b"")
            if signed and _key(message) == record["user_id"]:
                durable.commands.append(record)
        elif topic == ANSWERS:
            live.answers += self._codec.decode(value, "admission_answers")["answers"]
        elif topic == PROGRESS:
            live.progress.append(self._codec.decode(value, "job_progress"))
        elif topic == LOAD:
            live.loads.append(self._codec.decode(value, "domain_load"))
        elif topic == TENANTS:
            if value is None:
                live.tenants.append((_key(message), None))
            else:
                tenant = self._codec.decode(value, "tenant")
                live.tenants.append((tenant["user_id"], tenant))

    def _reached(self, ends: Sequence[Place]) -> None:
        if not ends or not (self._behind or self._tenants_behind):
            return
        had_tenants, had_rest = bool(self._tenants_behind), bool(self._behind)
        self._tenants_behind.difference_update(ends)
        self._behind.difference_update(ends)
        if had_tenants and not self._tenants_behind:
            self._tell(self._listener.on_tenants_loaded)
        if had_rest and not self._behind:
            log.info("caught up", at_seconds=round(time.monotonic(), 3))
            self._tell(self._listener.on_caught_up)

    def _tell(self, call: Callable[..., None], *arguments: object) -> None:
        assert self._loop is not None, "start() comes first"
        self._loop.call_soon_threadsafe(call, *arguments)


def _key(message: Message) -> str:
    key = message.key()
    return key.decode("utf-8", "replace") if isinstance(key, bytes) else key or ""
