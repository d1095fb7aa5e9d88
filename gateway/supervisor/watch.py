"""What the stack hears on Kafka about itself: heartbeats of slots and the schedulers' load reports."""

import threading
import time
from typing import Final

from confluent_kafka import OFFSET_END, Consumer, TopicPartition

from schemas.codec import Codec
from schemas.errors import CodecError
from schemas.topics import HEARTBEATS, LOAD
from streams.kafka.consumer import consumer_config
from streams.kafka.settings import KafkaSettings

FRESH_SECONDS: Final = 3.0
"""Both are sent each second."""


class Signals:
    """The latest signs of life of slots and schedulers. Start it when the topics exist; `close` ends its thread."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._codec = Codec()
        self._slots: dict[int, tuple[str, float]] = {}
        self._load_at: dict[str, float] = {}  # domain -> when its scheduler last reported
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="signals", daemon=True)

    def start(self) -> None:
        """Begin to listen, at the end of both topics."""
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(5.0)

    def slot_ready(self, slot: int) -> bool:
        """Whether a slot has told in the last 3 s that it is idle or busy."""
        state, at = self._slots.get(slot, ("", float("-inf")))
        return state in ("idle", "busy") and time.monotonic() - at < FRESH_SECONDS

    def scheduler_ready(self, domain: str) -> bool:
        """Whether a domain's scheduler has reported its load in the last 3 s."""
        return time.monotonic() - self._load_at.get(domain, float("-inf")) < FRESH_SECONDS

    def _listen(self) -> None:
        consumer = Consumer(consumer_config(self._settings, "meshyard-supervisor"))
        try:
            consumer.assign([TopicPartition(topic, 0, OFFSET_END) for topic in (HEARTBEATS, LOAD)])
            while not self._closing.is_set():
                message = consumer.poll(0.2)
                if message is None or message.error() is not None:
                    continue
                if message.topic() == LOAD:
                    key = message.key()
                    self._load_at[key.decode() if isinstance(key, bytes) else str(key)] = time.monotonic()
                    continue
                try:
                    beat = self._codec.decode(message.value(), "slot_heartbeat")
                except CodecError:
                    continue  # a stranger's record says nothing about our slots
                self._slots[beat["slot"]] = (beat["state"], time.monotonic())
        finally:
            consumer.close()
