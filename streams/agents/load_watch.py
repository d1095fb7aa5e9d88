"""The newest load report of each domain, read beside admission: it refuses what an overloaded domain does not take."""

import threading

import structlog
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from schemas.codec import Codec, Record
from schemas.errors import CodecError
from schemas.topics import LOAD
from streams.kafka.consumer import consumer_config
from streams.kafka.settings import KafkaSettings

log = structlog.get_logger(__name__)
# Reports come each second; older ones than these few say nothing any more.
LOOK_BACK_RECORDS = 50


class LoadWatch:
    """A thread that follows control.load. `of` may be asked from any thread."""

    def __init__(self, settings: KafkaSettings, codec: Codec) -> None:
        self._settings = settings
        self._codec = codec
        self._newest: dict[str, Record] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="load-watch", daemon=True)

    def start(self) -> None:
        """Begins to follow."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread."""
        self._stop.set()
        self._thread.join(10)

    def of(self, domain: str) -> Record | None:
        """The newest report of a domain, None before the first."""
        return self._newest.get(domain)

    def _follow(self) -> None:
        while not self._stop.is_set():
            consumer = Consumer(consumer_config(self._settings, "meshyard-load-watch"))
            try:
                low, high = consumer.get_watermark_offsets(TopicPartition(LOAD, 0), timeout=10)
                consumer.assign([TopicPartition(LOAD, 0, max(low, high - LOOK_BACK_RECORDS))])
                while not self._stop.is_set():
                    for message in consumer.consume(10, timeout=0.5):
                        self._read(message)
            except KafkaException as error:  # meanwhile nothing is refused for load here; gateways refuse as well
                log.warning("load_watch_interrupted", error=repr(error))
                self._stop.wait(1.0)
            finally:
                consumer.close()

    def _read(self, message: Message) -> None:
        value = message.value()
        if message.error() is not None or not isinstance(value, bytes):
            return
        try:
            report = self._codec.decode(value, "domain_load")
        except CodecError as error:
            log.warning("load_unreadable", reason=error.code, offset=message.offset())
            return
        self._newest[report["domain"]] = report
