"""The worker's surroundings in its tests: they write work as the scheduler does, and read what the worker says."""

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition

from schemas.codec import Codec, Record
from schemas.events import dispatch_id
from schemas.pipelines import PIPELINES
from schemas.topics import DEAD, EVENTS, HEARTBEATS, PROGRESS, catalogue, schedule_topic, work_topic
from streams.clock import SystemClock
from streams.kafka.admin import create_topics, partitions_of
from streams.kafka.settings import KafkaSettings
from tests.unit.worker.items import WISHES, request

WAIT_SECONDS = 60.0
SLOTS = 20
STAGES = tuple(spec.name for spec in PIPELINES["synthetic"].stages)


class Reader:
    """Follows a topic from the moment it is made; `seen` grows as records come."""

    def __init__(
        self, bootstrap: str, topic: str, partitions: int, record: str, isolation: str = "read_committed"
    ) -> None:
        self._record = record
        self._codec = Codec()
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": f"yard-{uuid.uuid4().hex}",
                "enable.auto.commit": False,
                "isolation.level": isolation,
            }
        )
        places = [TopicPartition(topic, partition) for partition in range(partitions)]
        for place in places:
            place.offset = self._end(place)
        self._consumer.assign(places)
        self.seen: list[Record] = []
        self.messages: list[Message] = []

    def _end(self, place: TopicPartition) -> int:
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                return int(self._consumer.get_watermark_offsets(place, timeout=WAIT_SECONDS)[1])
            except KafkaException:  # a topic just made has no leader for a moment
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def poll(self, timeout_seconds: float) -> bool:
        """Takes in the next record."""
        message = self._consumer.poll(timeout_seconds)
        if message is None:
            return False
        assert message.error() is None, message.error()
        self.messages.append(message)
        self.seen.append(self._codec.decode(message.value(), self._record))
        return True

    def until(self, enough: Callable[[list[Record]], Any], what: str) -> Any:
        """Reads until `enough(seen)` is true and returns its value."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not (value := enough(self.seen)):
            if time.monotonic() > deadline:
                raise AssertionError(f"no {what} within {WAIT_SECONDS} s; seen: {self.seen[-5:]}")
            self.poll(0.5)
        return value

    def drain(self, quiet_seconds: float = 0.3) -> list[Record]:
        """Everything, until nothing more comes."""
        while self.poll(quiet_seconds):
            pass
        return self.seen

    def close(self) -> None:
        """Ends."""
        self._consumer.close()


class Yard:
    """A domain of its own with its topics; the inbox and the events are read from now on."""

    def __init__(self, bootstrap: str, folder: Path) -> None:
        self.domain = f"t{uuid.uuid4().hex[:10]}"
        self.bootstrap = bootstrap
        self.folder = folder
        self.kafka = KafkaSettings(bootstrap=bootstrap, domain=self.domain)
        topics = [t for t in catalogue(domains=(self.domain,)) if not t.name.startswith(("requests", "admission"))]
        # Fewer slots than an installation has: partitions cost the broker time.
        topics = [replace(t, partitions=SLOTS) if t.name == work_topic(self.domain) else t for t in topics]
        create_topics(self.kafka, topics)
        counts = {t.name: partitions_of(t, self.kafka) for t in topics}
        self.inbox = Reader(bootstrap, schedule_topic(self.domain), 1, "inbox_batch")
        self.events = Reader(bootstrap, EVENTS, counts[EVENTS], "job_event")
        self.progress = Reader(bootstrap, PROGRESS, 1, "job_progress")
        self.heartbeats = Reader(bootstrap, HEARTBEATS, 1, "slot_heartbeat")
        self.dead = Reader(bootstrap, DEAD, 1, "dead_letter")
        self.producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 0})
        self.codec = Codec()
        self._clock = SystemClock()

    def close(self) -> None:
        """Ends the readers."""
        for reader in (self.inbox, self.events, self.progress, self.heartbeats, self.dead):
            reader.close()
        self.producer.flush(WAIT_SECONDS)

    @contextmanager
    def worker(self, slot: int, module: str = "inference", **env: str) -> Iterator[subprocess.Popen[bytes]]:
        """A worker process of its own, killed at the end if it still runs. Its log is `<folder>/worker.log`."""
        command = [sys.executable, "-m", module, "--pool", "test", "--slot", str(slot), "--synthetic"]
        environment = {
            **os.environ,
            "MESHYARD_KAFKA_BOOTSTRAP": self.bootstrap,
            "MESHYARD_DOMAIN": self.domain,
            "MESHYARD_OBJECTS_URL": f"file://{self.folder}/objects",
            "MESHYARD_DATA_DIR": f"{self.folder}/data",
            **env,
        }
        with (self.folder / "worker.log").open("ab") as log:
            process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def joined(self, slot: int, after: int = 0) -> int:
        """Waits until a life of the slot younger than `after` has joined; its epoch."""

        def find(_: list[Record]) -> int | None:
            epochs = [e["slot"]["epoch"] for e in self.entries("slot_joined") if e["slot"]["slot"] == slot]
            return next((epoch for epoch in epochs if epoch > after), None)

        return int(self.inbox.until(find, f"slot_joined of slot {slot}"))

    def entries(self, kind: str) -> list[Record]:
        """The inbox's entries of a kind, as far as they were read."""
        return [entry for batch in self.inbox.seen for entry in batch["entries"] if entry["kind"] == kind]

    def item(self, stage: str = "generate", attempt: int = 1, job_id: str | None = None, **fields: Any) -> Record:
        """A WorkItem; `parameters` and what else stands in the request, and any other field by name."""
        job_id = job_id or str(uuid.uuid4())
        wishes = {name: fields.pop(name) for name in WISHES if name in fields}
        now = self._clock.now_ms()
        return {
            "dispatch_id": dispatch_id(job_id, stage, attempt),
            "job_id": job_id,
            "user_id": "user-1",
            "stage": stage,
            "stage_index": STAGES.index(stage),
            "stage_count": len(STAGES),
            "attempt": attempt,
            "max_attempts": 3,
            "pipeline_id": "synthetic",
            "quality": "draft",
            "artefacts": [],
            "traceparent": f"00-{uuid.uuid4().hex}-00f067aa0ba902b7-01",
            "created_at": now - 1000,
            "ready_at": now - 500,
            "dispatched_at": now,
            "request": request(job_id, **wishes),
            **fields,
        }

    def dispatch(self, slot: int, epoch: int, *items: Record, cancel: tuple[Record, ...] = ()) -> None:
        """Writes one WorkBatch and waits for its ack."""
        controls = [
            {"kind": "cancel", "job_id": i["job_id"], "stage": i["stage"], "attempt": i["attempt"]} for i in cancel
        ]
        batch = {"slot": slot, "epoch": epoch, "items": list(items), "controls": controls}
        self.dispatch_raw(slot, self.codec.encode("work_batch", batch))

    def dispatch_raw(self, slot: int, value: bytes) -> None:
        """Writes any bytes to a slot's work partition."""
        self.producer.produce(work_topic(self.domain), value, str(slot), slot)
        assert self.producer.flush(WAIT_SECONDS) == 0

    def settled(self, item: Record) -> Record:
        """Waits for the StageSettled of an item."""

        def find(_: list[Record]) -> Record | None:
            for entry in self.entries("stage_settled"):
                settled: Record = entry["settled"]
                if dispatch_id(settled["job_id"], settled["stage"], settled["attempt"]) == item["dispatch_id"]:
                    return settled
            return None

        found: Record = self.inbox.until(find, f"stage_settled of {item['dispatch_id']}")
        return found

    def transitions(self, item: Record, count: int) -> list[str]:
        """Waits for so many events of the item's job; their transitions in the order of the partition."""

        def find(seen: list[Record]) -> list[str]:
            return [event["transition"] for event in seen if event["job_id"] == item["job_id"]]

        self.events.until(lambda seen: len(find(seen)) >= count, f"{count} events of {item['job_id']}")
        return find(self.events.seen)
