"""Producers: idempotent, acks from all replicas, keys spread by murmur2 as Java and Faust do.

`AsyncProducer` gives one process's coroutines acknowledged sends, in batches at 15 us a record: confluent_kafka's own
AIOProducer waits for batches and takes no headers (300 requests/s measured).
"""

import asyncio
import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from streams.kafka.settings import KafkaSettings

log = structlog.get_logger(__name__)

_MANY_LINGER_MS: Final = 0.5
_FEW_RECORDS: Final = 4  # not acknowledged yet; more of them are many
_TRANSACTION_LINGER_MS: Final = 5.0

Headers = list[tuple[str, str | bytes | None]]


def producer_config(settings: KafkaSettings, *, linger_ms: float = 0) -> dict[str, Any]:
    """librdkafka settings of every plain producer."""
    return {
        **settings.client(),
        "enable.idempotence": True,
        "acks": "all",
        "partitioner": "murmur2_random",
        "linger.ms": linger_ms,
        "compression.type": "lz4",
        # A record that is not acked after this long is reported as failed; the caller decides.
        "delivery.timeout.ms": 30_000,
    }


def transactional_config(settings: KafkaSettings, transactional_id: str) -> dict[str, Any]:
    """librdkafka settings of a producer whose sends are transactions. An open transaction stalls every read_committed
    reader, so the broker ends it after 10 s. The commit sends what lingers at once: one request a partition."""
    return {
        **producer_config(settings, linger_ms=_TRANSACTION_LINGER_MS),
        "transactional.id": transactional_id,
        "transaction.timeout.ms": 10_000,
        "delivery.timeout.ms": 10_000,
    }


class Outgoing(NamedTuple):
    """One record to send. partition -1: by the key."""

    topic: str
    key: str | None
    value: bytes | None
    partition: int = -1
    headers: Headers | None = None


class AsyncProducer:
    """Sends for coroutines of one event loop.

    A thread polls librdkafka; a batch wakes the loop once, when its last record is acknowledged. A failed delivery
    raises KafkaException at the one who awaits it. Use as an async context manager; leaving it flushes.

    There are two producers. The prompt one sends each record at once; many records at a time go to the other one,
    which lets them linger for a moment, so that they are one request a partition: half the CPU time of many requests
    here, a tenth of it at the broker. Sends of different calls therefore have no order unless one is awaited before
    the other is made.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._prompt = Producer(producer_config(settings))
        self._many = Producer(producer_config(settings, linger_ms=_MANY_LINGER_MS))
        self._in_flight = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._done: deque[_Batch] = deque()
        self._wake_pending = False
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._poll, args=(producer,), name="kafka-acks", daemon=True)
            for producer in (self._prompt, self._many)
        ]

    async def __aenter__(self) -> "AsyncProducer":
        self._loop = asyncio.get_running_loop()
        for thread in self._threads:
            thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for producer in (self._prompt, self._many):
            await asyncio.to_thread(producer.flush, 10)
        self._stop.set()
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    async def send(self, topic: str, key: str | None, value: bytes | None, headers: Headers | None = None) -> None:
        """Sends one record and waits until it is acked. Raises KafkaException."""
        await self.send_all([Outgoing(topic, key, value, -1, headers)])

    async def send_all(self, records: Iterable[Outgoing]) -> None:
        """Sends records and waits until the last one is acked; order is kept within each partition."""
        assert self._loop is not None, "use as `async with AsyncProducer(...)`"
        items = list(records)
        if not items:
            return
        batch = _Batch(self._loop.create_future(), len(items), self._finish)
        many = len(items) + self._in_flight > _FEW_RECORDS
        producer, report = self._many if many else self._prompt, batch.report
        self._in_flight += len(items)
        try:
            for topic, key, value, partition, headers in items:
                while True:
                    try:
                        producer.produce(
                            topic, value=value, key=key, partition=partition, headers=headers, on_delivery=report
                        )
                        break
                    except BufferError:  # the local queue is full: acks make room
                        producer.poll(0.05)
            await batch.future
        finally:
            self._in_flight -= len(items)

    def _finish(self, batch: "_Batch") -> None:
        """In the polling thread: every record of the batch is acked or has failed."""
        self._done.append(batch)
        if not self._wake_pending:
            self._wake_pending = True
            assert self._loop is not None
            self._loop.call_soon_threadsafe(self._settle)

    def _settle(self) -> None:
        self._wake_pending = False
        while self._done:
            batch = self._done.popleft()
            if batch.future.done():
                continue
            if batch.error is not None:
                batch.future.set_exception(KafkaException(batch.error))
            else:
                batch.future.set_result(None)

    def _poll(self, producer: Producer) -> None:
        while not self._stop.is_set():
            producer.poll(0.1)


class _Batch:
    """Sends that are awaited together. finish: called with the batch after the last report."""

    def __init__(self, future: "asyncio.Future[None]", size: int, finish: "Callable[[_Batch], None]") -> None:
        self.future = future
        self.error: KafkaError | None = None
        self._size = size
        self._reports = itertools.count(1)  # atomic: two threads may poll at the same time
        self._finish = finish

    def report(self, error: KafkaError | None, _message: Message) -> None:
        """A record is acked, or has failed."""
        if error is not None and self.error is None:
            self.error = error
        if next(self._reports) == self._size:
            self._finish(self)


def header(message: Message, name: str) -> bytes | None:
    """The first header of that name."""
    found = message.headers()
    for key, value in found.items() if isinstance(found, dict) else found or []:
        if key == name and value is not None:
            return value.encode() if isinstance(value, str) else value
    return None


def tracing_headers(record: Mapping[str, object]) -> Headers:
    """W3C trace context of a record, as a header for consumers that trace."""
    trace = record.get("traceparent")
    return [("traceparent", str(trace).encode())] if trace else []
