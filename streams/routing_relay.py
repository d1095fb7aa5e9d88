"""Carries routing rules from `control.routing` into a scheduler's inbox, so that they are part of its journal.

A thread beside the scheduler. It reads the compacted topic from its beginning at each start and hands on what is newer
than the fold's own revision of that rule; a rule that comes twice changes nothing there.
"""

from collections.abc import Callable

import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition

from schemas.codec import Codec
from schemas.errors import CodecError
from schemas.topics import ROUTING
from streams.beside import Beside
from streams.inbox import InboxWriter
from streams.kafka.consumer import consumer_config
from streams.kafka.settings import KafkaSettings

log = structlog.get_logger(__name__)
POLL_SECONDS = 0.5
RETRY_SECONDS = 1.0


class RoutingRelay(Beside):
    """The thread. `revision_of` gives the revision of a rule that the fold has, -1 for none."""

    name = "routing-relay"

    def __init__(
        self,
        settings: KafkaSettings,
        codec: Codec,
        inbox: InboxWriter,
        revision_of: Callable[[str], int],
        fail: Callable[[BaseException], None],
    ) -> None:
        super().__init__(fail)
        self._settings = settings
        self._codec = codec
        self._inbox = inbox
        self._revision_of = revision_of
        self._sent: dict[str, int] = {}

    def run(self) -> None:
        """Reads and hands on."""
        consumer = Consumer({**consumer_config(self._settings, "meshyard-routing-relay"), "fetch.wait.max.ms": 5_000})
        consumer.assign([TopicPartition(ROUTING, 0, OFFSET_BEGINNING)])
        try:
            while not self.stopping.is_set():
                for message in consumer.consume(100, timeout=POLL_SECONDS):
                    if message.error() is None:
                        self._take(message.value(), message.offset())
        finally:
            consumer.close()

    def _take(self, value: str | bytes | None, offset: int | None) -> None:
        if value is None:  # a tombstone: the rule stays as it is until another one replaces it
            return
        try:
            rule = self._codec.decode(value if isinstance(value, bytes) else None, "routing_rule")
        except CodecError as error:
            log.warning("routing_unreadable", offset=offset, reason=error.code)
            return
        name, revision = rule["name"], rule["revision"]
        if revision <= max(self._revision_of(name), self._sent.get(name, -1)):
            return
        while not self.stopping.is_set():
            try:
                self._inbox.append(name, self._inbox.entry("routing_changed", routing=rule))
            except (KafkaException, TimeoutError) as error:
                log.warning("routing_not_handed_on", rule=name, revision=revision, error=str(error))
                self.stopping.wait(RETRY_SECONDS)
                continue
            self._sent[name] = revision
            log.info("routing_handed_on", rule=name, revision=revision)
            return
