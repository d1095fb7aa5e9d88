"""The slot monitor: finds slots that no longer give a sign of life, fences them, and says so in the inbox.

It stands outside the fold, a thread beside the scheduler: heartbeats are no decisions. Fencing comes first:
init_transactions with the slot's transactional.id makes every later commit of the old process fail (`_FENCED`) and
aborts a transaction that it left open, which would otherwise stall the inbox for everybody. Only then `slot_lost` is
appended; so every commit of the old epoch stands before it in the log, and the scheduler may dispatch again when it
reads it. After its own start the monitor gives every slot a full grace period.

A slot that says `stopping` is reported as draining, so that it gets nothing new. `fence` is for the reconciler: a slot
that lives but does not do what it was given is ended the same way.
"""

import queue
from collections.abc import Callable, Mapping

import structlog
from confluent_kafka import OFFSET_END, Consumer, KafkaException, Producer, TopicPartition

from schemas.codec import Codec, Record
from schemas.errors import CodecError
from schemas.topics import HEARTBEATS, schedule_topic
from streams.beside import Beside
from streams.inbox import InboxWriter
from streams.kafka.consumer import consumer_config, partition_count
from streams.kafka.producer import transactional_config
from streams.settings import StreamsSettings

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


class SlotMonitor(Beside):
    """The thread. `live` gives the slots that the scheduler believes to be up, with their epochs; `hear` gets every
    heartbeat of the domain's slots, in the thread."""

    name = "slot-monitor"

    def __init__(
        self,
        settings: StreamsSettings,
        codec: Codec,
        inbox: InboxWriter,
        live: Callable[[], Mapping[int, int]],
        hear: Callable[[Record], None],
        fail: Callable[[BaseException], None],
    ) -> None:
        super().__init__(fail)
        self._settings = settings.kafka
        self._codec = codec
        self._inbox = inbox
        self._clock = inbox.clock
        self._live = live
        self._hear_too = hear
        self._silence = Silence(settings.slot_grace_seconds)
        self._declared: set[tuple[int, int]] = set()
        self._draining: set[tuple[int, int]] = set()
        self._asked: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()

    def fence(self, slot: int, epoch: int) -> None:
        """Ends a life of a slot as if it had been silent, in the next round; also one that the scheduler does not
        know. Safe in any thread."""
        self._asked.put((slot, epoch))

    def run(self) -> None:
        """Listens, fences, reports."""
        consumer = Consumer(consumer_config(self._settings, "meshyard-slot-monitor"))
        places = [TopicPartition(HEARTBEATS, p, OFFSET_END) for p in range(partition_count(self._settings, HEARTBEATS))]
        consumer.assign(places)
        try:
            while not self.stopping.is_set():
                for message in consumer.consume(500, timeout=POLL_SECONDS):
                    if message.error() is None:  # a broker that is away is librdkafka's to wait for
                        self._hear(message.value())
                lost = [*self._silence.lost(self._live(), self._clock.monotonic_seconds()), *self._fences_asked()]
                for slot, epoch in lost:
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
        if beat["domain"] != self._settings.domain:
            return
        self._silence.heard(beat["slot"], beat["epoch"], self._clock.monotonic_seconds())
        self._hear_too(beat)
        if beat["state"] == "stopping":
            self._report_draining(beat)

    def _fences_asked(self) -> list[tuple[int, int]]:
        asked = []
        while not self._asked.empty():
            asked.append(self._asked.get())
        return asked

    def _report_draining(self, beat: Record) -> None:
        """Says once that a slot wants no new work; what fails is tried again at its next heartbeat."""
        key = (beat["slot"], beat["epoch"])
        if key in self._draining or self._live().get(beat["slot"]) != beat["epoch"]:
            return
        named = ("slot", "epoch", "dispatch_ids", "last_work_offset")
        report = {**{name: beat[name] for name in named}, "draining": True}
        try:
            self._inbox.append(f"slot-{beat['slot']}", self._inbox.entry("slot_report", report=report))
        except (KafkaException, TimeoutError) as error:
            log.warning("report_failed", slot=beat["slot"], epoch=beat["epoch"], error=str(error))
            return
        self._draining.add(key)
        log.info("slot_draining", slot=beat["slot"], epoch=beat["epoch"])

    def _declare_lost(self, slot: int, epoch: int) -> None:
        """Fences the slot and appends slot_lost; what fails is tried again in the next round."""
        producer = Producer(transactional_config(self._settings, slot_transactional_id(self._settings.domain, slot)))
        lost = {"slot": slot, "epoch": epoch, "pool": "", "resource_class": "", "serves": []}
        entry = {"kind": "slot_lost", "at": self._clock.now_ms(), "slot": lost}
        try:
            producer.init_transactions(30)
            if self._live().get(slot) != epoch:
                # Not the scheduler's: a life that it never heard of, or one that joined in the meantime, which has been
                # fenced by mistake. Either starts again.
                log.warning("slot_fenced", slot=slot, epoch=epoch)
                return
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
