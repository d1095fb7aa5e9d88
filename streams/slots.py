"""The slot monitor: finds slots that no longer give a sign of life, fences them, and says so in the inbox.

It stands outside the fold, a thread beside the scheduler: heartbeats are no decisions. Fencing comes first:
init_transactions with the slot's transactional.id makes every later commit of the old process fail (`_FENCED`) and
aborts a transaction that it left open, which would otherwise stall the inbox for everybody. Only then `slot_lost` is
appended; so every commit of the old epoch stands before it in the log, and the scheduler may dispatch again when it
reads it. After its own start the monitor gives every slot a full grace period.
"""

import threading
from collections.abc import Callable, Mapping

import structlog
from confluent_kafka import OFFSET_END, Consumer, KafkaException, Producer, TopicPartition

from schemas.codec import Codec
from schemas.errors import CodecError
from schemas.topics import HEARTBEATS, schedule_topic
from streams.clock import Clock
from streams.kafka.consumer import consumer_config, partition_count
from streams.kafka.producer import transactional_config
from streams.kafka.settings import KafkaSettings

log = structlog.get_logger(__name__)
POLL_SECONDS = 0.5


def slot_transactional_id(domain: str, slot: int) -> str:
    """The transactional.id that a slot's worker and its monitor share."""
    return f"slot-{domain}-{slot}"


class Silence:
    """Which slots have been silent for too long. Pure: times are arguments, in seconds of one monotonic clock."""

    def __init__(self, grace_seconds: float) -> None:
        self._grace = grace_seconds
        self._heard: dict[tuple[int, int], float] = {}

    def heard(self, slot: int, epoch: int, now: float) -> None:
        """A heartbeat of a slot's epoch arrived."""
        self._heard[slot, epoch] = now

    def lost(self, live: Mapping[int, int], now: float) -> list[tuple[int, int]]:
        """(slot, epoch) of the live ones whose grace has passed; a slot's grace begins when it is first seen live."""
        for key in live.items():
            self._heard.setdefault(key, now)
        self._heard = {key: at for key, at in self._heard.items() if live.get(key[0], key[1]) <= key[1]}
        return [key for key in live.items() if now - self._heard[key] > self._grace]


class SlotMonitor:
    """The thread. `live` gives the slots that the scheduler believes to be up, with their epochs."""

    def __init__(
        self,
        settings: KafkaSettings,
        codec: Codec,
        clock: Clock,
        live: Callable[[], Mapping[int, int]],
        grace_seconds: float,
    ) -> None:
        self._settings = settings
        self._codec = codec
        self._clock = clock
        self._live = live
        self._silence = Silence(grace_seconds)
        self._declared: set[tuple[int, int]] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="slot-monitor", daemon=True)

    def start(self) -> None:
        """Begins to listen."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread and waits for it."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        consumer = Consumer(consumer_config(self._settings, "meshyard-slot-monitor"))
        places = [TopicPartition(HEARTBEATS, p, OFFSET_END) for p in range(partition_count(self._settings, HEARTBEATS))]
        consumer.assign(places)
        try:
            while not self._stop.is_set():
                for message in consumer.consume(500, timeout=POLL_SECONDS):
                    self._hear(message.value() if message.error() is None else None)
                for slot, epoch in self._silence.lost(self._live(), self._clock.monotonic_seconds()):
                    if (slot, epoch) not in self._declared:
                        self._declare_lost(slot, epoch)
        finally:
            consumer.close()

    def _hear(self, value: str | bytes | None) -> None:
        try:
            beat = self._codec.decode(value if isinstance(value, bytes) else None, "slot_heartbeat")
        except CodecError as error:
            log.warning("heartbeat_unreadable", reason=error.code)
            return
        if beat["domain"] == self._settings.domain:
            self._silence.heard(beat["slot"], beat["epoch"], self._clock.monotonic_seconds())

    def _declare_lost(self, slot: int, epoch: int) -> None:
        """Fences the slot and appends slot_lost; what fails is tried again in the next round."""
        producer = Producer(transactional_config(self._settings, slot_transactional_id(self._settings.domain, slot)))
        lost = {"slot": slot, "epoch": epoch, "pool": "", "resource_class": "", "serves": []}
        entry = {"kind": "slot_lost", "at": self._clock.now_ms(), "slot": lost}
        try:
            producer.init_transactions(30)
            if self._live().get(slot) != epoch:
                return  # a new worker joined in the meantime; it has been fenced by mistake and will start again
            producer.begin_transaction()
            producer.produce(
                schedule_topic(self._settings.domain),
                key=f"slot-{slot}",
                value=self._codec.encode("inbox_batch", {"entries": [entry]}),
            )
            producer.commit_transaction(10)
            self._declared.add((slot, epoch))
            log.warning("slot_lost", slot=slot, epoch=epoch)
        except KafkaException as error:
            log.warning("fencing_failed", slot=slot, epoch=epoch, error=str(error))
