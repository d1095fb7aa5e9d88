"""A product that writes requests straight to Kafka, and reads what became of them."""

import time
import uuid
from collections import Counter
from typing import Any

from confluent_kafka import Message, Producer

from schemas.codec import Codec, Record
from schemas.topics import ANSWERS, COMMANDS, DEAD, EVENTS, TENANTS, requests_topic, schedule_topic
from streams.kafka.consumer import end_offset, read_range
from streams.kafka.producer import Headers, producer_config
from streams.kafka.settings import KafkaSettings

REQUESTS = requests_topic("text-to-3d")


class Upstream:
    """One user's producer. Readers look only at what came since this was made."""

    def __init__(self, settings: KafkaSettings, codec: Codec) -> None:
        self.settings = settings
        self.codec = codec
        self.producer = Producer(producer_config(settings))
        self.user = f"user-{uuid.uuid4().hex[:8]}"
        self.places: dict[str, tuple[int, int]] = {}  # request_id -> partition, offset
        self.start = {p: end_offset(settings, EVENTS, p) for p in range(settings.user_partitions)}
        self.start_answers = end_offset(settings, ANSWERS, 0)
        self.start_dead = end_offset(settings, DEAD, 0)

    def tenant(self, **changes: Any) -> None:
        """This user's standing: wide limits, unless told otherwise."""
        record = {
            "user_id": self.user, "tier": "pro", "weight": 2.0, "requests_per_minute": 60_000.0,
            "burst_requests": 100_000, "scopes": ["jobs"], "keys": [], "updated_at": 1, "max_backlog": 100_000,
            **changes,
        }  # fmt: skip
        self.send_to(TENANTS, "tenant", record)
        self.producer.flush(10)

    def request(self, **changes: Any) -> Record:
        """A good request."""
        return {
            "request_id": str(uuid.uuid4()), "job_id": str(uuid.uuid4()), "user_id": self.user, "tier": "enterprise",
            "job_type": "model", "created_at": now_ms(), "workflow": "text-to-3d", "pipeline_id": "assembly",
            "model_version": None, "prompt": "a chair", "seed": 1, "quality": "standard", "formats": ["glb"],
            "parameters": {}, "traceparent": None, "priority": 3, "on_limit": "reject", **changes,
        }  # fmt: skip

    def command(self, kind: str, job_id: str, **changes: Any) -> None:
        """A command of this user."""
        record = {
            "command_id": str(uuid.uuid4()), "kind": kind, "job_id": job_id, "user_id": self.user, "reason": "enough",
            "issued_at": now_ms(), **changes,
        }  # fmt: skip
        self.send_to(COMMANDS, "command", record)
        self.producer.flush(10)

    def send(self, request: Record, *, key: str | None = None, headers: Headers | None = None) -> None:
        """Sends a request."""
        value = self.codec.encode("job_requested", request)
        self.send_bytes(value, key=key or self.user, headers=headers, name=request["request_id"])

    def send_to(self, topic: str, name: str, record: Record) -> None:
        """Sends any record with this user as the key."""
        self.producer.produce(topic, key=self.user, value=self.codec.encode(name, record))

    def send_bytes(self, value: bytes, *, key: str, headers: Headers | None = None, name: str = "") -> None:
        """Sends bytes as a request."""

        def sent(_: object, message: Message) -> None:
            self.places[name] = (message.partition() or 0, message.offset() or 0)

        self.producer.produce(REQUESTS, key=key, value=value, headers=headers, on_delivery=sent)
        self.producer.poll(0)

    def answers(self) -> list[Record]:
        """Answers to this user."""
        topic_end = end_offset(self.settings, ANSWERS, 0)
        messages = read_range(self.settings, ANSWERS, 0, start=self.start_answers, end=topic_end)
        return [a for m in messages for a in self.decode(m)["answers"] if a["user_id"] == self.user]

    def answer(self, request: Record) -> Record | None:
        """The answer to a request."""
        return next((a for a in self.answers() if a["request_id"] == request["request_id"]), None)

    def events(self) -> list[Record]:
        """Events of this user's jobs."""
        found: list[Record] = []
        for partition, start in self.start.items():
            end = end_offset(self.settings, EVENTS, partition)
            found += map(self.decode, read_range(self.settings, EVENTS, partition, start=start, end=end))
        return [event for event in found if event["user_id"] == self.user]

    def told(self) -> dict[str, list[str]]:
        """job_id -> its transitions, each told once however often it was sent, in the order of their times."""
        events = {event["event_id"]: event for event in self.events()}.values()
        found: dict[str, list[str]] = {}
        for event in sorted(events, key=lambda event: event["at"]):
            found.setdefault(event["job_id"], []).append(event["transition"])
        return found

    def inbox(self, domain: str | None = None) -> list[tuple[int, Record]]:
        """Entries about this user in the inbox of a domain (of this test, else), with the times of their records."""
        topic = schedule_topic(domain or self.settings.domain)
        found = []
        for message in read_range(self.settings, topic, 0, end=end_offset(self.settings, topic, 0)):
            for entry in self.decode(message)["entries"]:
                body = entry["ready"] or entry["cancel"] or entry["control"] or entry["tenant"] or {}
                if body.get("user_id") == self.user:
                    found.append((message.timestamp()[1], entry))
        return found

    def released(self, domain: str | None = None) -> Counter[str]:
        """Jobs that the scheduler was given, and how often."""
        entries = (entry for _, entry in self.inbox(domain))
        return Counter(entry["ready"]["job_id"] for entry in entries if entry["kind"] == "stage_ready")

    def dead(self) -> list[str]:
        """Reasons of the dead letters with this user as the key, in order."""
        end = end_offset(self.settings, DEAD, 0)
        letters = map(self.decode, read_range(self.settings, DEAD, 0, start=self.start_dead, end=end))
        return [letter["reason"] for letter in letters if letter["key"] == self.user.encode()]

    def decode(self, message: Message) -> Record:
        """The record of a message."""
        value = message.value()
        assert isinstance(value, bytes)
        return self.codec.decode(value)


def now_ms() -> int:
    """The time."""
    return int(time.time() * 1000)
