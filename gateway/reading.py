"""What the gateway's two readers of Kafka share: a thread each, every partition assigned by hand."""

import asyncio
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message

from gateway.tables import Place
from schemas.errors import CodecError
from streams.kafka.consumer import consumer_config
from streams.kafka.settings import KafkaSettings

log = structlog.get_logger(__name__)

MAX_RECORDS: Final = 500
_RETRY_SECONDS: Final = 0.3
# Polls are this far apart at least, so that a stream of single records becomes batches: waking for each costs more
# than working on it. A record after a pause is not held up.
_PACE_SECONDS: Final = 0.003


class Reader(ABC):
    """A thread that reads some topics. start() returns at once; the broker may come later.

    Whoever derives says what it does with a consumer (`_read`) and with a record (`_take`); on_failed is called on
    the loop when the thread has ended by an error and will not come back.
    """

    def __init__(
        self, settings: KafkaSettings, name: str, topics: Sequence[str], on_failed: Callable[[Exception], None]
    ) -> None:
        self._settings = settings
        self._name = name
        self._topics = topics
        self._on_failed = on_failed
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._last_poll = 0.0
        self.connected = False

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Starts reading; calls go to this loop."""
        self._loop = loop
        self._thread.start()

    async def stop(self) -> None:
        """Ends the thread after the batch in hand."""
        self._stop.set()
        if self._thread.ident is not None:
            await asyncio.to_thread(self._thread.join)

    @abstractmethod
    def _read(self) -> None:
        """Reads until it is stopped."""

    @abstractmethod
    def _take(self, message: Message, place: Place) -> None:
        """One record. Raises CodecError, ValueError for one that cannot be used."""

    def _run(self) -> None:
        try:
            self._read()
        except Exception as error:  # the process cannot serve without its readers: it ends and is started again
            log.exception("reader failed", reader=self._name)
            self._tell(self._on_failed, error)

    def _consumer(self, more: Mapping[str, Any]) -> Consumer:
        return Consumer(
            {
                **consumer_config(self._settings, f"meshyard-{self._name}"),
                "client.id": self._name,
                "enable.partition.eof": True,
                **more,
            }
        )

    def _poll(self, consumer: Consumer, timeout_seconds: float) -> list[Message]:
        """What lies there, waiting for the first record only; not sooner after the last call than _PACE_SECONDS."""
        now = time.monotonic()
        if now - self._last_poll < _PACE_SECONDS:
            time.sleep(self._last_poll + _PACE_SECONDS - now)
        first = consumer.poll(timeout_seconds)
        self._last_poll = time.monotonic()
        if first is None:
            return []
        # consume() alone would wait for a full batch; so it only takes what lies there already.
        return [first, *consumer.consume(MAX_RECORDS, 0)]

    def _sorted(self, messages: Sequence[Message], ends: list[Place]) -> Iterator[tuple[Message, Place]]:
        """The records that could be used; partitions whose end was reached go into `ends`."""
        for message in messages:
            place = (message.topic() or "", message.partition() or 0)
            error = message.error()
            if error is None:
                try:
                    self._take(message, place)
                except (CodecError, ValueError) as reason:
                    # Whoever decides on the record sends it to jobs.dead; the read model goes on.
                    log.warning(
                        "record skipped",
                        topic=place[0],
                        partition=place[1],
                        offset=message.offset(),
                        reason=getattr(reason, "code", type(reason).__name__),
                    )
                yield message, place
            elif error.code() == KafkaError._PARTITION_EOF:
                ends.append(place)
            else:
                log.warning("Kafka error", topic=place[0], partition=place[1], error=error.str())

    def _wait_for_topics(self, consumer: Consumer) -> tuple[list[Place], str]:
        """All partitions and the cluster's id; nothing when stopped meanwhile."""
        last_told = ""
        while not self._stop.is_set():
            try:
                metadata = consumer.list_topics(timeout=1)
            except KafkaException as error:
                missing = f"the broker does not answer: {error.args[0].str()}"
            else:
                found = metadata.topics
                absent = [t for t in self._topics if t not in found or found[t].error is not None]
                if not absent:
                    places = [(topic, number) for topic in self._topics for number in sorted(found[topic].partitions)]
                    return places, metadata.cluster_id or ""
                missing = f"topics are missing: {', '.join(absent)}"
            if missing != last_told:
                log.warning("waiting for Kafka", reader=self._name, reason=missing)
                last_told = missing
            self._stop.wait(_RETRY_SECONDS)
        return [], ""

    def _tell(self, call: Callable[..., None], *arguments: object) -> None:
        assert self._loop is not None, "start() comes first"
        self._loop.call_soon_threadsafe(call, *arguments)


def key_of(message: Message) -> str:
    """A record's key as text."""
    key = message.key()
    return key.decode("utf-8", "replace") if isinstance(key, bytes) else key or ""
