"""Appends to a scheduler's inbox from the threads beside it, and tells operators what was done."""

import threading
from collections.abc import Mapping
from typing import Any

from confluent_kafka import KafkaException, Producer

from schemas.codec import Codec, Record
from schemas.topics import PLATFORM_EVENTS, schedule_topic
from streams.clock import Clock
from streams.kafka.producer import producer_config
from streams.kafka.settings import KafkaSettings

ACK_SECONDS = 30.0


class InboxWriter:
    """Each call waits for the broker's ack. Safe in several threads. Raises KafkaException when there is none."""

    def __init__(self, settings: KafkaSettings, codec: Codec, clock: Clock) -> None:
        self.domain = settings.domain
        self._codec = codec
        self.clock = clock
        self._producer = Producer(producer_config(settings))
        self._lock = threading.Lock()

    def entry(self, kind: str, **content: Any) -> Record:
        """An entry that happens now, in the form of InboxBatch."""
        return {"kind": kind, "at": self.clock.now_ms(), **content}

    def append(self, key: str, *entries: Record) -> None:
        """One inbox record."""
        self._send(schedule_topic(self.domain), key, self._codec.encode("inbox_batch", {"entries": list(entries)}))

    def tell(self, kind: str, subject: str, detail: Mapping[str, str]) -> None:
        """A platform event of this domain."""
        event = {
            "kind": kind,
            "domain": self.domain,
            "subject": subject,
            "detail": dict(detail),
            "at": self.clock.now_ms(),
        }
        self._send(PLATFORM_EVENTS, subject, self._codec.encode("platform_event", event))

    def _send(self, topic: str, key: str, value: bytes) -> None:
        failures: list[Any] = []
        with self._lock:
            self._producer.produce(
                topic, key=key, value=value, on_delivery=lambda error, _: failures.append(error) if error else None
            )
            left = self._producer.flush(ACK_SECONDS)
        if failures:
            raise KafkaException(failures[0])
        if left:
            raise TimeoutError(f"{topic}: no ack within {ACK_SECONDS:.0f} s")
