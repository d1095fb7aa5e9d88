"""The slot's transactions: one transactional.id for each slot, so that a newer life of the slot fences the older.

Each transaction is short: sends, the offset, commit. What a failed one means is one of two exceptions; a producer that
raised either is not used again (a commit that timed out may still be carried out by the broker later).
"""

from collections.abc import Sequence
from typing import Any, Final

import structlog
from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition

from schemas.topics import work_topic
from streams.kafka.producer import Outgoing, transactional_config
from streams.kafka.settings import KafkaSettings

log = structlog.get_logger(__name__)

TRIES: Final = 3
_FENCED: Final = frozenset({KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED})


class SlotFenced(RuntimeError):
    """Another life of this slot has begun, or the slot monitor gave this one up."""

    def __init__(self) -> None:
        super().__init__(self.__doc__)


class CommitUnsure(RuntimeError):
    """Whether the transaction is committed cannot be known; a new producer settles it."""

    def __init__(self, detail: str) -> None:
        self.detail = detail
        super().__init__(f"{self.__doc__} {detail}")


def transactional_id(domain: str, slot: int) -> str:
    """Who fences whom goes by this name."""
    return f"slot-{domain}-{slot}"


def work_group(domain: str) -> str:
    """The consumer group that holds the offsets of a domain's work partitions."""
    return f"meshyard-work-{domain}"


class SlotProducer:
    """The transactional producer of one life of a slot."""

    def __init__(self, settings: KafkaSettings, slot: int, group: Any) -> None:
        """group: the consumer_group_metadata() of whom the offsets are. It is asked for once, by the caller: another
        thread may be polling the consumer later, and the call holds Python's lock until that poll has ended."""
        self._slot = slot
        self._topic = work_topic(settings.domain)
        self._group = group
        self._producer = Producer(transactional_config(settings, transactional_id(settings.domain, slot)))

    def open(self, timeout_seconds: float) -> None:
        """Fences every older life of the slot and ends its open transaction. Raises KafkaException."""
        self._producer.init_transactions(timeout_seconds)

    def commit(self, records: Sequence[Outgoing], offset: int | None, timeout_seconds: float = 10.0) -> None:
        """Writes records and the work partition's offset, all or nothing. Raises SlotFenced, CommitUnsure."""
        for attempt in range(1, TRIES + 1):
            try:
                self._fill(records, offset, timeout_seconds)
            except KafkaException as error:
                # Nothing is committed: the same records may be written again once the abort is certain.
                self._abort(error.args[0], timeout_seconds, may_go_on=attempt < TRIES)
                continue
            try:
                self.end_transaction(timeout_seconds)
            except KafkaException as error:
                raise _verdict(error.args[0]) from error
            return

    def end_transaction(self, timeout_seconds: float) -> None:
        """The commit itself, after everything has been handed over. Raises KafkaException."""
        self._producer.commit_transaction(timeout_seconds)

    def close(self) -> None:
        """Lets go of what was not sent."""
        self._producer.purge()
        self._producer.close()

    def _fill(self, records: Sequence[Outgoing], offset: int | None, timeout_seconds: float) -> None:
        self._producer.begin_transaction()
        for record in records:
            self._producer.produce(
                record.topic,
                key=record.key,
                value=record.value,
                partition=record.partition,
                headers=record.headers or [],
            )
        if offset is not None:
            place = TopicPartition(self._topic, self._slot, offset)
            self._producer.send_offsets_to_transaction([place], self._group, timeout_seconds)

    def _abort(self, cause: Any, timeout_seconds: float, *, may_go_on: bool) -> None:
        log.warning("transaction_failed", error=str(cause))
        # `_FATAL` only says that the producer is lost; the abort's own error tells whether it was fenced.
        if cause.code() != KafkaError._FATAL and not (cause.txn_requires_abort() and may_go_on):
            raise _verdict(cause)
        try:
            self._producer.abort_transaction(timeout_seconds)
        except KafkaException as error:
            raise _verdict(error.args[0]) from error


def _verdict(error: Any) -> SlotFenced | CommitUnsure:
    return SlotFenced() if error.code() in _FENCED else CommitUnsure(str(error))
