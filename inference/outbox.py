"""What the worker says on Kafka, as records: at once by the plain producer, or handed over for a transaction."""

from collections.abc import Sequence
from typing import Any, Final

import structlog
from confluent_kafka import Message, Producer

from inference.outcome import (
    Finished,
    SlotIdentity,
    SlotOffer,
    dead_letter,
    job_events,
    settled_entry,
    slot_entry,
    started_event,
)
from inference.work import WorkItem
from schemas.codec import Codec, Record
from schemas.errors import CodecError
from schemas.topics import DEAD, EVENTS, PROGRESS, requests_topic, schedule_topic
from streams.kafka.producer import Headers, Outgoing, tracing_headers

log = structlog.get_logger(__name__)

# Settled entries name their artefacts: so many fit a record, whatever stages make.
ENTRIES_A_RECORD: Final = 64


class Outbox:
    """Encodes and addresses records. Methods named `send_*` send at once; the others return what to commit."""

    def __init__(self, producer: Producer, codec: Codec, *, domain: str) -> None:
        self._producer = producer
        self._codec = codec
        self._inbox_topic = schedule_topic(domain)

    def send_started(self, item: WorkItem, who: SlotIdentity, at: int) -> None:
        """The JobEvent of an attempt's beginning."""
        self._send(EVENTS, item.job_id, "job_event", started_event(item, who, at), tracing_headers(item.job()))

    def send_progress(self, item: WorkItem, percent: float, message: str, at: int) -> None:
        """How far the job is, 0 to 100."""
        record = {
            "job_id": item.job_id,
            "user_id": item.user_id,
            "stage": item.stage,
            "attempt": item.attempt,
            "percent": percent,
            "message": message,
            "at": at,
        }
        self._send(PROGRESS, item.job_id, "job_progress", record)

    def send_dead(self, message: Message, reason: CodecError, at: int) -> None:
        """A record that cannot be read, whole, for the operators."""
        key = message.key()
        record = {
            "topic": message.topic(),
            "partition": message.partition(),
            "offset": message.offset(),
            "key": key,
            "value": message.value(),
            "reason": reason.code,
            "detail": str(reason)[:1000],
            "schema_id": reason.schema_id,
            "attempts": 1,
            "role": "worker",
            "at": at,
        }
        self._send(DEAD, str(message.partition()), "dead_letter", record)

    def ends(self, done: Sequence[Finished], who: SlotIdentity) -> list[Outgoing]:
        """All that is to be said of finished attempts (at least one): their JobEvents, the dead letters of jobs that
        failed for good, and the inbox's entries, as few records as hold them."""
        records = []
        for finished in done:
            item = finished.item
            headers = tracing_headers(item.job())
            for event in job_events(finished, who):
                records.append(self._outgoing(EVENTS, item.job_id, "job_event", event, headers))
            if finished.ends_job:
                letter = dead_letter(finished, requests_topic(item.workflow))
                value = self._codec.encode_large("dead_letter", letter)
                records.append(Outgoing(DEAD, item.job_id, value, -1, headers))
        for start in range(0, len(done), ENTRIES_A_RECORD):
            entries = [settled_entry(finished, who) for finished in done[start : start + ENTRIES_A_RECORD]]
            records.append(self._outgoing(self._inbox_topic, str(who.slot), "inbox_batch", {"entries": entries}))
        return records

    def slot_change(self, kind: str, who: SlotIdentity, offer: SlotOffer, at: int) -> list[Outgoing]:
        """The inbox record by which the slot joins (slot_joined) or leaves (slot_lost)."""
        batch = {"entries": [slot_entry(kind, who, offer, at)]}
        return [self._outgoing(self._inbox_topic, str(who.slot), "inbox_batch", batch)]

    def flush(self, timeout_seconds: float) -> None:
        """Waits for what was sent at once."""
        left = self._producer.flush(timeout_seconds)
        if left:
            log.warning("records_not_acknowledged", records=left)

    def _send(self, topic: str, key: str, name: str, record: Record, headers: Headers | None = None) -> None:
        value = self._codec.encode(name, record)
        self._producer.produce(topic, key=key, value=value, headers=headers or [], on_delivery=_report)
        self._producer.poll(0)

    def _outgoing(self, topic: str, key: str, name: str, record: Record, headers: Headers | None = None) -> Outgoing:
        return Outgoing(topic, key, self._codec.encode(name, record), -1, headers)


def _report(error: Any, message: Message) -> None:
    if error is not None:
        log.warning("record_not_delivered", topic=message.topic(), error=str(error))
