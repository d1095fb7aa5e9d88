"""jobs.events into ClickHouse, each record exactly once, in the table and in every view on it.

How, for each partition: (1) collect records; (2) commit their start with the metadata `end=N`, the intent; (3) insert
the block under a token made of start and end; (4) commit the end. Whoever comes after a crash finds the intent, reads
the same records again and inserts them under the same token, which ClickHouse then knows. An intent is repeated until
it succeeds and never given up. One thread, one group; a partition that is taken away is forgotten at once, and a
commit of a member that has lost its partitions is refused by Kafka.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from analytics.intents import Intent, Source, intent_of
from analytics.pace import Pace
from analytics.records import Raw, Row, row_of
from analytics.settings import SinkSettings
from analytics.store import Store, StoreUnavailableError
from schemas.codec import Codec
from schemas.errors import CodecError
from streams.clock import Clock
from streams.kafka.consumer import consumer_config
from streams.kafka.dead import dead_key, dead_letter
from streams.kafka.producer import producer_config
from streams.kafka.settings import KafkaSettings

log = structlog.get_logger(__name__)

_POLL_SECONDS = 0.1
_POLL_RECORDS = 2000
_FETCH_BYTES = 256 * 1024
_FETCH_WAIT_MS = 200
_RETRY_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0)
_KAFKA_SECONDS = 30.0
_MAX_DEAD_BYTES = 900_000
_LOST = (
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError.FENCED_INSTANCE_ID,
)


@dataclass(kw_only=True)
class _Partition:
    """A partition that is ours.

    start: the next offset to become a row. intent: what Kafka's metadata holds for `start`, or will, when `is_stated`
    is False. records: read and not yet rows, in order. due: when their block closes, full or not.
    """

    number: int
    start: int
    pace: Pace
    intent: Intent | None = None
    is_stated: bool = False
    records: list[Raw] = field(default_factory=list)
    size_bytes: int = 0
    due: float | None = None
    retry_at: float = 0.0
    retries: int = 0
    is_paused: bool = False


class Sink:
    """Runs in one thread: `run` until `stop` is called (from a signal handler)."""

    def __init__(self, kafka: KafkaSettings, settings: SinkSettings, store: Store, codec: Codec, clock: Clock) -> None:
        self._kafka = kafka
        self._settings = settings
        self._store = store
        self._codec = codec
        self._clock = clock
        self._consumer = Consumer(
            {
                **consumer_config(kafka, settings.group),
                "group.instance.id": settings.sink_id,
                "session.timeout.ms": 10_000,
                "partition.assignment.strategy": "range",
                # Rows are inserted in blocks anyway: a fetch for each new record only cost the broker requests.
                "fetch.min.bytes": _FETCH_BYTES,
                "fetch.wait.max.ms": _FETCH_WAIT_MS,
            }
        )
        self._producer = Producer(producer_config(kafka))
        self._partitions: dict[int, _Partition] = {}
        self._is_stopping = False
        self._identity = ("", "")

    def stop(self) -> None:
        """Ends `run` after its current step; what is not inserted stays in Kafka."""
        self._is_stopping = True

    def run(self) -> None:
        """Moves records until stopped.

        Raises:
            KafkaException: fatal for this process, for example a second sink with the same id.
            MigrationError, ValueError: the schema or the price list is wrong.
        """
        try:
            if not self._wait_for("clickhouse", self._store.prepare) or not self._wait_for("kafka", self._identify):
                return
            self._consumer.subscribe([self._settings.topic], on_assign=self._assigned, on_revoke=self._revoked)
            log.info("sink_ready", topic=self._settings.topic, group=self._settings.group, sink=self._settings.sink_id)
            while not self._is_stopping:
                self._step()
        finally:
            self._consumer.close()
            self._store.close()
            log.info("sink_stopped")

    def _step(self) -> None:
        for message in self._consumer.consume(_POLL_RECORDS, timeout=_POLL_SECONDS):
            self._take(message)
        for partition in list(self._partitions.values()):
            if self._partitions.get(partition.number) is partition:
                self._advance(partition)

    def _wait_for(self, what: str, attempt: Callable[[], None]) -> bool:
        """Repeats `attempt` until it succeeds; False when stopped before."""
        failures = 0
        while not self._is_stopping:
            try:
                attempt()
                return True
            except (StoreUnavailableError, KafkaException) as error:
                pause = _RETRY_SECONDS[min(failures, len(_RETRY_SECONDS) - 1)]
                failures += 1
                log.warning("sink_waits", waits_for=what, failures=failures, error=str(error), retry_seconds=pause)
                deadline = self._clock.monotonic_seconds() + pause
                while not self._is_stopping and self._clock.monotonic_seconds() < deadline:
                    time.sleep(0.05)
        return False

    def _identify(self) -> None:
        """Learns which cluster and which topic these are. Raises KafkaException."""
        from confluent_kafka import TopicCollection

        admin = AdminClient(self._kafka.client())
        cluster = admin.describe_cluster(request_timeout=_KAFKA_SECONDS).result()
        topics = admin.describe_topics(TopicCollection([self._settings.topic]), request_timeout=_KAFKA_SECONDS)
        topic = topics[self._settings.topic].result()
        self._identity = (str(cluster.cluster_id), str(topic.topic_id))

    # Partitions come and go; these run inside consume()

    def _assigned(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        committed = _retry_group(lambda: consumer.committed(places, timeout=_KAFKA_SECONDS))
        starts = []
        for place in committed:
            start = place.offset
            if start < 0:
                start, _ = consumer.get_watermark_offsets(place, timeout=_KAFKA_SECONDS)
            intent = intent_of(start, place.metadata)
            pace = Pace(
                shortest_seconds=self._settings.linger_ms / 1000, longest_seconds=self._settings.max_linger_ms / 1000
            )
            self._partitions[place.partition] = _Partition(
                number=place.partition, start=start, pace=pace, intent=intent, is_stated=intent is not None
            )
            starts.append(TopicPartition(place.topic, place.partition, start))
            if intent is not None:
                log.info("intent_found", partition=place.partition, start=start, end=intent.end)
        consumer.assign(starts)
        consumer.resume(starts)  # a partition that was paused when it was taken away stays so in librdkafka
        log.info("partitions_assigned", partitions=sorted(self._partitions))

    def _revoked(self, _consumer: Consumer, places: list[TopicPartition]) -> None:
        for place in places:
            self._partitions.pop(place.partition, None)
        log.info("partitions_revoked", partitions=sorted(place.partition for place in places))

    # One record, one step of a partition

    def _take(self, message: Message) -> None:
        error = message.error()
        if error is not None:
            if error.fatal():
                raise KafkaException(error)
            log.warning("kafka_error", error=str(error))
            return
        number, offset = message.partition() or 0, message.offset() or 0
        partition = self._partitions.get(number)
        if (
            partition is None
            or (partition.records and offset <= partition.records[-1].offset)
            or offset < partition.start
        ):
            return
        value = _bytes(message.value())
        raw = Raw(topic=message.topic() or "", partition=number, offset=offset, key=_bytes(message.key()), value=value)
        partition.records.append(raw)
        partition.size_bytes += len(value or b"")
        if not partition.is_paused and self._is_full(partition, times=2):
            self._consumer.pause([self._place(partition)])
            partition.is_paused = True

    def _is_full(self, partition: _Partition, times: int = 1) -> bool:
        rows, size_bytes = self._settings.block_rows * times, self._settings.block_bytes * times
        return len(partition.records) >= rows or partition.size_bytes >= size_bytes

    def _advance(self, partition: _Partition) -> None:
        now = self._clock.monotonic_seconds()
        if now < partition.retry_at:
            return
        try:
            if partition.intent is None:
                partition.intent = self._next_intent(partition, now)
            if partition.intent is None:
                return
            if not partition.is_stated:
                self._commit(partition, partition.start, partition.intent.metadata)
                partition.is_stated = True
            if self._has_all_of(partition, partition.intent):
                self._fulfil(partition, partition.intent, now)
        except (StoreUnavailableError, KafkaException) as error:
            self._failed(partition, error, now)

    def _next_intent(self, partition: _Partition, now: float) -> Intent | None:
        if not partition.records:
            return None
        if partition.due is None:
            partition.due = partition.pace.due(now)
        if now < partition.due and not self._is_full(partition):
            return None
        partition.due = None
        size_bytes, count = 0, 0
        for raw in partition.records[: self._settings.block_rows]:
            size_bytes += len(raw.value or b"")
            if count and size_bytes > self._settings.block_bytes:
                break
            count += 1
        return Intent(start=partition.start, end=partition.records[count - 1].offset + 1)

    def _has_all_of(self, partition: _Partition, intent: Intent) -> bool:
        """An intent ends behind a committed record, so that record is read again, unless it is no longer kept."""
        if partition.records and partition.records[-1].offset >= intent.end - 1:
            return True
        place = self._consumer.position([self._place(partition)])[0]
        return bool(place.offset >= intent.end)

    def _fulfil(self, partition: _Partition, intent: Intent, now: float) -> None:
        block = [raw for raw in partition.records if raw.offset < intent.end]
        rows: list[Row] = []
        poison: list[tuple[Raw, CodecError]] = []
        for raw in block:
            try:
                rows.append(row_of(raw, self._codec))
            except CodecError as error:
                poison.append((raw, error))
        if poison:
            self._bury(poison)
        if rows:
            self._store.insert(rows, intent, self._source(partition))
        self._commit(partition, intent.end, "")
        partition.records = partition.records[len(block) :]
        partition.size_bytes = sum(len(raw.value or b"") for raw in partition.records)
        partition.start, partition.intent, partition.is_stated = intent.end, None, False
        partition.retry_at, partition.retries = 0.0, 0
        partition.pace.stored(now)
        if partition.is_paused and not self._is_full(partition):
            self._consumer.resume([self._place(partition)])
            partition.is_paused = False
        log.debug("block_stored", partition=partition.number, start=intent.start, end=intent.end, rows=len(rows))

    def _bury(self, poison: list[tuple[Raw, CodecError]]) -> None:
        """Sends records that are no rows to the dead letters and waits until they are there. Raises KafkaException."""
        failures: list[KafkaError] = []

        def delivered(error: KafkaError | None, _message: Message) -> None:
            if error is not None:
                failures.append(error)

        for raw, error in poison:
            place = (raw.topic, raw.partition, raw.offset)
            more: dict[str, int | str] = {"role": "sink", "at": self._clock.now_ms()}
            if error.schema_id is not None and error.schema_id < 2**31:
                more["schema_id"] = error.schema_id
            value, detail = raw.value, str(error)
            if value is not None and len(value) > _MAX_DEAD_BYTES:  # with its frame it would be over Kafka's own limit
                value, detail = value[:_MAX_DEAD_BYTES], f"{detail} (cut to {_MAX_DEAD_BYTES} of {len(value)} bytes)"
            letter = dead_letter(place, raw.key, value, reason=error.code, detail=detail, **more)
            encoded = self._codec.encode_large("dead_letter", letter)
            self._producer.produce(self._settings.dead_topic, encoded, dead_key(place), on_delivery=delivered)
            log.warning(
                "record_is_poison", topic=raw.topic, partition=raw.partition, offset=raw.offset, reason=error.code
            )
        if self._producer.flush(_KAFKA_SECONDS):
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        if failures:
            raise KafkaException(failures[0])

    def _commit(self, partition: _Partition, offset: int, metadata: str) -> None:
        """Raises KafkaException; whether the commit stands is then not known, and repeating it is harmless."""
        place = TopicPartition(self._settings.topic, partition.number, offset, metadata)
        for done in self._consumer.commit(offsets=[place], asynchronous=False) or []:
            if done.error is not None:
                raise KafkaException(done.error)

    def _failed(self, partition: _Partition, error: Exception, now: float) -> None:
        if isinstance(error, KafkaException):
            reason: KafkaError = error.args[0]
            if reason.fatal() or reason.code() == KafkaError._FENCED:
                raise error
            if reason.code() in _LOST:  # the rebalance that follows brings what is committed
                self._partitions.pop(partition.number, None)
                log.info("partition_lost", partition=partition.number, error=str(error))
                return
        pause = _RETRY_SECONDS[min(partition.retries, len(_RETRY_SECONDS) - 1)]
        partition.retries += 1
        partition.retry_at = now + pause
        log.warning(
            "block_retried",
            partition=partition.number,
            intent=str(partition.intent),
            retries=partition.retries,
            retry_seconds=pause,
            error=str(error),
        )

    def _place(self, partition: _Partition) -> TopicPartition:
        return TopicPartition(self._settings.topic, partition.number)

    def _source(self, partition: _Partition) -> Source:
        cluster_id, topic_id = self._identity
        return Source(cluster_id=cluster_id, topic=self._settings.topic, topic_id=topic_id, partition=partition.number)


def _bytes(data: str | bytes | None) -> bytes | None:
    return data.encode() if isinstance(data, str) else data


def _retry_group(ask: Callable[[], list[TopicPartition]]) -> list[TopicPartition]:
    """A group's coordinator that has just moved refuses for a moment. Raises KafkaException."""
    not_ready = (
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
    )
    deadline = time.monotonic() + _KAFKA_SECONDS
    while True:
        try:
            return ask()
        except KafkaException as error:
            if error.args[0].code() not in not_ready or time.monotonic() > deadline:
                raise
            time.sleep(0.1)
