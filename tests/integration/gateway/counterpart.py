"""The gateway's counterparts on Kafka, played by the test: admission and scheduler by their topics and records."""

import threading
import time
import uuid
from typing import Any

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from gateway.keys import new_api_key
from schemas.codec import Codec, Record
from schemas.events import job_event
from schemas.jobs import Transition
from schemas.pipelines import PIPELINES
from schemas.topics import ANSWERS, COMMANDS, EVENTS, LOAD, PROGRESS, TENANTS, catalogue, requests_topic
from streams.kafka.admin import create_topics
from streams.kafka.consumer import consumer_config
from streams.kafka.producer import header, producer_config
from streams.kafka.settings import KafkaSettings

REQUESTS = requests_topic("text-to-3d")
LIMITS = ("requests", "key_requests", "backlog", "queue_depth", "load")


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def _end(consumer: Consumer, place: TopicPartition) -> int:
    """Where a partition ends; a topic that was just made has no leader for a moment."""
    for _ in range(50):
        try:
            return int(consumer.get_watermark_offsets(place, timeout=10)[1])
        except KafkaException:
            time.sleep(0.1)
    raise TimeoutError(f"{place} has no leader")


class Counterpart:
    """Answers requests as their parameter `answer` says (accepted without one) and tells control.load each 200 ms.

    `answer`: held (until `due_ms`), forbidden, invalid_request, or a limit's name. silent: while set, nothing is
    answered; backlog: what control.load lists; load: further fields of control.load.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        create_topics(settings, catalogue())
        self.settings = settings
        self.codec = Codec()
        self.silent = False
        self.backlog: list[Record] = []
        self.load: Record = {}
        self.requests: dict[str, Record] = {}
        self.signatures: dict[str, bytes | None] = {}
        self._bodies: dict[str, Record] = {}
        self._producer = Producer(producer_config(settings))
        self._stop = threading.Event()
        self._assigned = threading.Event()
        self._thread = threading.Thread(target=self._run, name="counterpart", daemon=True)

    def __enter__(self) -> "Counterpart":
        self._thread.start()
        assert self._assigned.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._producer.flush(10)

    def tenant(self, user_id: str, *, scopes: tuple[str, ...] = ("jobs", "synthetic"), tier: str = "pro") -> str:
        """Writes a user's row with one new key and returns the key's text."""
        text, key = new_api_key()
        self.put_tenant(user_id, [key], scopes, tier)
        return text

    def put_tenant(
        self, user_id: str, keys: list[Record], scopes: tuple[str, ...] = ("jobs", "synthetic"), tier: str = "pro"
    ) -> None:
        self._put(
            TENANTS,
            user_id,
            "tenant",
            {
                "user_id": user_id,
                "tier": tier,
                "weight": 1.0,
                "requests_per_minute": 600.0,
                "burst_requests": 1000,
                "scopes": list(scopes),
                "keys": keys,
                "updated_at": now_ms(),
            },
        )

    def event(self, job_id: str, transition: Transition, **details: Any) -> Record:
        """Writes one event of a job that was requested, and returns it."""
        event = job_event(self.requests[job_id], transition, at=now_ms(), stage_count=3, **details)
        self.put_event(event)
        return event

    def put_event(self, event: Record) -> None:
        self._put(EVENTS, event["job_id"], "job_event", event)

    def raw_event(self, key: str, value: bytes) -> None:
        self._producer.produce(EVENTS, key=key, value=value)
        assert self._producer.flush(10) == 0

    def request(self, key: str, record: Record) -> None:
        """Writes a request as any producer may."""
        self._put(REQUESTS, key, "job_requested", record)

    def command(self, user_id: str, job_id: str, kind: str) -> None:
        """Writes a command as a producer without the installation's key may."""
        record = {
            "command_id": str(uuid.uuid4()),
            "kind": kind,
            "job_id": job_id,
            "user_id": user_id,
            "reason": "",
            "issued_at": now_ms(),
        }
        self._put(COMMANDS, user_id, "command", record)

    def write_all(self, records: list[tuple[str, Record]]) -> None:
        """Writes requests and events without waiting for each."""
        for kind, record in records:
            topic, name, key = (
                (REQUESTS, "job_requested", record["user_id"])
                if kind == "request"
                else (EVENTS, "job_event", record["job_id"])
            )
            self._producer.produce(topic, key=key, value=self.codec.encode(name, record))
            self._producer.poll(0)
        assert self._producer.flush(30) == 0

    def progress(self, job_id: str, stage: str, percent: float) -> None:
        request = self.requests[job_id]
        record = {
            "job_id": job_id,
            "user_id": request["user_id"],
            "stage": stage,
            "attempt": 1,
            "percent": percent,
            "message": f"{stage} goes on",
            "at": now_ms(),
        }
        self._put(PROGRESS, job_id, "job_progress", record)

    def run_job(self, job_id: str, artefacts: dict[str, list[Record]] | None = None) -> None:
        """Writes the events of a whole successful job."""
        pipeline = PIPELINES[self.requests[job_id]["pipeline_id"]]
        for index, spec in enumerate(pipeline.stages):
            place = {"stage": spec.name, "stage_index": index, "attempt": 1}
            self.event(job_id, Transition.STARTED, wait_seconds=0.25, **place)
            self.event(
                job_id,
                Transition.STAGE_SUCCEEDED,
                run_seconds=1.5,
                gpu_seconds=1.25,
                artefacts=(artefacts or {}).get(spec.name, []),
                **place,
            )
        self.event(job_id, Transition.SUCCEEDED, stage_index=len(pipeline.stages) - 1, attempt=1)

    def _put(self, topic: str, key: str | None, name: str, record: Record) -> None:
        self._producer.produce(topic, key=key, value=self.codec.encode(name, record))
        assert self._producer.flush(10) == 0

    def _run(self) -> None:
        consumer = Consumer(consumer_config(self.settings, "counterpart"))
        partitions = range(self.settings.user_partitions)
        # From the end as it stands now: OFFSET_END would be looked up later and miss the first requests.
        places = [TopicPartition(REQUESTS, p) for p in partitions]
        for place in places:
            place.offset = _end(consumer, place)
        consumer.assign(places)
        self._assigned.set()
        last_load = 0.0
        while not self._stop.is_set():
            if time.monotonic() - last_load > 0.2 and not self.silent:
                last_load = time.monotonic()
                self._put(LOAD, self.settings.domain, "domain_load", self._load())
            message = consumer.poll(0.05)
            if message is None or message.error() is not None:
                continue
            value = message.value()
            assert value is not None
            record = self.codec.decode(value, "job_requested")
            self.signatures[record["job_id"]] = header(message, "meshyard-signature")
            self.requests.setdefault(record["job_id"], record)
            if not self.silent:
                self._answer(record)
        consumer.close()

    def _load(self) -> Record:
        return {
            "domain": self.settings.domain,
            "virtual_time": 0.0,
            "queued_tasks": 0,
            "running_tasks": 0,
            "live_slots": 1,
            "queued_gpu_seconds": 0.0,
            "backlog": self.backlog,
            "at": now_ms(),
            **self.load,
        }

    def _answer(self, record: Record) -> None:
        wanted, at = record["parameters"].get("answer", "accepted"), now_ms()
        body = {k: v for k, v in record.items() if k not in ("request_id", "created_at", "traceparent", "key_id")}
        outcome, code = "accepted", "ok"
        limit = wanted if wanted in LIMITS else None
        held_until = int(record["parameters"]["due_ms"]) if wanted == "held" else None
        if limit is not None:
            outcome, code = "rejected", "rate_limit"
        elif wanted in ("forbidden", "invalid_request"):
            outcome, code = "rejected", wanted
        elif record["job_id"] in self._bodies:
            same = self._bodies[record["job_id"]] == body
            outcome, code = ("duplicate", "ok") if same else ("conflict", "idempotency_conflict")
        else:
            self._bodies[record["job_id"]] = body
        answer: Record = {
            "request_id": record["request_id"],
            "job_id": record["job_id"],
            "user_id": record["user_id"],
            "outcome": outcome,
            "code": code,
            "detail": f"admission says {code}",
            "retry_after_ms": 1500 if limit not in (None, "backlog") else None,
            "limit_requests": 1000,
            "remaining_requests": 0 if code == "rate_limit" else 999,
            "reset_ms": 100,
            "answered_at": now_ms(),
            "limit": limit,
            "held_until": held_until,
        }
        self._put(ANSWERS, None, "admission_answers", {"answers": [answer]})
        job = {**record, "lane": record["lane"] or "standard", "tier": "pro"}
        if held_until is not None and outcome == "accepted":
            self.put_event(job_event(job, Transition.HELD, at=at, stage_count=3, due_at=held_until))
        elif outcome == "accepted":
            self.put_event(job_event(job, Transition.QUEUED, at=at, stage_count=3))
        elif outcome == "rejected":
            self.put_event(
                job_event(
                    record,
                    Transition.REJECTED,
                    at=now_ms(),
                    stage_count=3,
                    error_class=code,
                    error_message="refused",
                )
            )
