"""Plays the workers of a domain on a real broker, beside the scheduler's real process."""

import random
from collections.abc import Sequence

from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

from schemas.codec import Codec, Record
from schemas.topics import HEARTBEATS, PLATFORM_EVENTS, schedule_topic, work_topic
from streams.kafka.consumer import consumer_config, end_offset, read_range
from streams.kafka.producer import producer_config, transactional_config
from streams.kafka.settings import KafkaSettings
from tests.support.kafka import read_topic
from tests.support.world import SERVES, ready

SLOTS = 3


def inbox(settings: KafkaSettings, codec: Codec) -> list[tuple[int, Record]]:
    """Every committed record of the inbox, with its offset."""
    topic = schedule_topic(settings.domain)
    messages = read_range(settings, topic, 0, end=end_offset(settings, topic, 0))
    return [(m.offset() or 0, codec.decode(as_bytes(m.value()))) for m in messages]


def as_bytes(value: str | bytes | None) -> bytes:
    assert isinstance(value, bytes)
    return value


class Slots:
    """Plays the workers: joins, and settles whatever work appears, each settlement in a transaction of its slot."""

    def __init__(self, settings: KafkaSettings, codec: Codec, *, count: int = SLOTS, epoch: int = 1) -> None:
        self.epoch = epoch
        self.settings = settings
        self.codec = codec
        self.seen: dict[int, list[Record]] = {slot: [] for slot in range(count)}
        self.read: dict[int, int] = {}  # slot -> newest offset of its work partition
        self.repeats = 0
        self._consumer = Consumer(consumer_config(settings, f"slots-{settings.domain}"))
        topic = work_topic(settings.domain)
        self._consumer.assign([TopicPartition(topic, slot, OFFSET_BEGINNING) for slot in range(count)])
        self._plain = Producer(producer_config(settings))
        self._producers = {}
        for slot in range(count):
            producer = Producer(transactional_config(settings, f"slot-{settings.domain}-{slot}"))
            producer.init_transactions(30)
            self._producers[slot] = producer
            change = {"slot": slot, "epoch": epoch, "pool": "p", "resource_class": "cpu", "serves": SERVES}
            self.append(slot, {"kind": "slot_joined", "at": 1, "slot": change})

    def append(self, slot: int, entry: Record, *, commit: bool = True) -> None:
        """An inbox record in a transaction of the slot."""
        producer = self._producers[slot]
        producer.begin_transaction()
        value = self.codec.encode("inbox_batch", {"entries": [entry]})
        producer.produce(schedule_topic(self.settings.domain), value=value)
        producer.flush(10)
        if commit:
            producer.commit_transaction(10)
        else:
            producer.abort_transaction(10)

    def beat(self, slot: int, named: Sequence[str] = (), state: str = "busy") -> None:
        """A heartbeat that names these dispatches and tells how far the slot has read."""
        beat = {
            "domain": self.settings.domain, "slot": slot, "epoch": self.epoch, "pool": "p", "state": state,
            "dispatch_ids": list(named), "last_work_offset": self.read.get(slot, -1), "rss_bytes": 1, "at": 1,
        }  # fmt: skip
        self._plain.produce(HEARTBEATS, key=str(slot), value=self.codec.encode("slot_heartbeat", beat))
        self._plain.flush(10)

    def work(self, rng: random.Random | None) -> int:
        """Settles new work, or only takes it in when there is no dice; returns how many items were new. One in five is
        first settled in an aborted transaction."""
        new = 0
        for message in self._consumer.consume(100, timeout=0.2):
            assert message.error() is None
            batch = self.codec.decode(as_bytes(message.value()))
            slot = batch["slot"]
            self.read[slot] = message.offset() or 0
            for item in batch["items"] if batch["epoch"] == self.epoch else []:
                known = {i["dispatch_id"]: i for i in self.seen[slot]}
                if item["dispatch_id"] in known:
                    assert known[item["dispatch_id"]] == item, "a repeat must be the same"
                    self.repeats += 1
                    continue
                self.seen[slot].append(item)
                new += 1
                if rng is not None:
                    self.settle(slot, item, rng)
        return new

    def close(self) -> None:
        """Lets the consumer go."""
        self._consumer.close()

    def settle(self, slot: int, item: Record, rng: random.Random) -> None:
        """An item's end."""
        entry = settlement(slot, self.epoch, item, rng)
        if rng.random() < 0.2:
            lie = {**entry, "settled": {**entry["settled"], "outcome": "failed", "error_class": "permanent"}}
            self.append(slot, lie, commit=False)
        self.append(slot, entry)


def settlement(slot: int, epoch: int, item: Record, rng: random.Random) -> Record:
    """One in ten attempts fails in passing."""
    failed = item["attempt"] < 3 and rng.random() < 0.1
    settled = {
        "job_id": item["job_id"], "stage": item["stage"], "attempt": item["attempt"], "slot": slot, "epoch": epoch,
        "outcome": "failed" if failed else "succeeded", "error_class": "transient" if failed else None,
        "gpu_seconds": rng.uniform(0.01, 3), "artefacts": [],
    }  # fmt: skip
    return {"kind": "stage_settled", "at": 2, "settled": settled}


def submit(settings: KafkaSettings, codec: Codec, jobs: int) -> None:
    """Jobs of three users, as admission sends them."""
    producer = Producer(producer_config(settings))
    for number in range(jobs):
        entry = {"kind": "stage_ready", "at": 2, "ready": ready(f"job-{number}", f"user-{number % 3}")}
        producer.produce(schedule_topic(settings.domain), value=codec.encode("inbox_batch", {"entries": [entry]}))
    producer.flush(10)


def entries(settings: KafkaSettings, codec: Codec, kind: str) -> list[Record]:
    """Every entry of one kind in the inbox."""
    return [entry for _, record in inbox(settings, codec) for entry in record["entries"] if entry["kind"] == kind]


def every_repair(settings: KafkaSettings, codec: Codec) -> list[tuple[str, dict[str, str]]]:
    """Subject and detail of this domain's repairs, oldest first."""
    told = (codec.decode(as_bytes(m.value())) for m in read_topic(settings.bootstrap, PLATFORM_EVENTS))
    return [(e["subject"], e["detail"]) for e in told if e["domain"] == settings.domain and e["kind"] == "repair"]


def repairs(settings: KafkaSettings, codec: Codec) -> dict[str, dict[str, str]]:
    """Subject -> detail of this domain's newest repair of it."""
    return dict(every_repair(settings, codec))
