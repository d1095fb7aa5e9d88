"""Keeps the events of a benchmark's users as they come: a thread that reads jobs.events from now on."""

import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final

from confluent_kafka import Consumer, KafkaException, TopicPartition

from schemas.codec import Codec
from schemas.errors import CodecError
from schemas.jobs import TERMINAL_TRANSITIONS
from schemas.topics import EVENTS
from streams.kafka.consumer import consumer_config, partition_count
from streams.kafka.settings import KafkaSettings

_POLL_SECONDS: Final = 0.2
_TIMEOUT_SECONDS: Final = 10.0


class EventListener:
    """Use it as a context manager; it hears what is written after `__enter__` has returned.

    prefix: how the ids of the users begin whose events are kept.
    """

    def __init__(self, kafka: KafkaSettings, prefix: str) -> None:
        self._kafka = kafka
        self._prefix = prefix
        self._codec = Codec()
        self._events: dict[str, list[dict[str, Any]]] = {}  # job -> events
        self._ended: set[str] = set()
        self._news = threading.Condition()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, name="event-listener", daemon=True)
        self._consumer = Consumer(consumer_config(kafka, "meshyard-bench"))

    def __enter__(self) -> "EventListener":
        places = [TopicPartition(EVENTS, number) for number in range(partition_count(self._kafka, EVENTS))]
        for place in places:
            _, place.offset = self._consumer.get_watermark_offsets(place, timeout=_TIMEOUT_SECONDS)
        self._consumer.assign(places)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(_TIMEOUT_SECONDS)
        self._consumer.close()

    def wait_ended(self, jobs: set[str], timeout_seconds: float) -> set[str]:
        """Waits until these jobs have ended; returns those that have not in time."""
        deadline = time.monotonic() + timeout_seconds
        with self._news:
            while (left := jobs - self._ended) and (seconds := deadline - time.monotonic()) > 0:
                self._news.wait(min(seconds, 1.0))
        return left

    def events_of(self, jobs: Mapping[str, Any]) -> list[dict[str, Any]]:
        """All events of some jobs, in no order."""
        with self._news:
            return [event for job_id in jobs for event in self._events.get(job_id, ())]

    def _read(self) -> None:
        while not self._stop.is_set():
            try:
                messages = self._consumer.consume(500, _POLL_SECONDS)
            except KafkaException:
                continue  # the broker is asked again
            with self._news:
                for message in messages:
                    if message.error() is None:
                        self._take(message.value())
                self._news.notify_all()

    def _take(self, value: bytes | str | None) -> None:
        try:
            event = self._codec.decode(value if isinstance(value, bytes) else None, "job_event")
        except CodecError:
            return  # not one of ours
        if event["user_id"].startswith(self._prefix):
            self._events.setdefault(event["job_id"], []).append(event)
            if event["transition"] in TERMINAL_TRANSITIONS:
                self._ended.add(event["job_id"])
