"""Finds and reads what a replay needs: the inbox, the work that was sent, and the snapshot before a time."""

from collections.abc import Iterator
from dataclasses import dataclass

import structlog
from confluent_kafka import Consumer, Message, TopicPartition
from msgspec import DecodeError, ValidationError

from schemas.codec import Codec
from schemas.errors import CodecError
from schemas.topics import schedule_topic, work_topic
from streams.kafka.consumer import consumer_config, end_offset, first_offset, partition_count, read_range
from streams.kafka.settings import KafkaSettings
from streams.objects import ObjectStore
from streams.policy.scheduler import POLICY_VERSION
from streams.policy.state import SchedulerState, decode_snapshot
from streams.simulate.engine import Entry
from streams.simulate.replay import InboxRecord, Sent
from streams.snapshots import snapshot_offset

log = structlog.get_logger(__name__)
_SECONDS = 30.0


class NoRecording(RuntimeError):
    """What was asked for is not recorded any more, or not yet; the message says what is missing and the remedy."""


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A domain's recorded inbox. window: [first, end) offsets between two times; snapshot: the state to begin from,
    None for the inbox's own beginning; start: the first offset to fold; committed_end: up to where the
    scheduler's sends are acknowledged."""

    domain: str
    window: tuple[int, int]
    snapshot: SchedulerState | None
    start: int
    committed_end: int


def find(
    settings: KafkaSettings, objects: ObjectStore, domain: str, since_ms: int, until_ms: int, committed_end: int
) -> Recording:
    """The recording between two times. committed_end: as in Recording. Raises NoRecording, KafkaException."""
    topic = schedule_topic(domain)
    first, end = (offset_at(settings, topic, at) for at in (since_ms, until_ms))
    end = min(end, committed_end)
    if first >= end:
        raise NoRecording(f"the inbox of {domain} holds nothing between these times; widen --from and --to")
    snapshot = snapshot_before(objects, domain, first)
    low = first_offset(settings, topic, 0)
    start = 0 if snapshot is None else snapshot.next_offset
    if start < low:
        raise NoRecording(
            f"no snapshot stands between inbox offset {low}, the oldest kept, and {first}, where --from is; "
            "take a later --from"
        )
    return Recording(domain=domain, window=(first, end), snapshot=snapshot, start=start, committed_end=committed_end)


def offset_at(settings: KafkaSettings, topic: str, at_ms: int) -> int:
    """The offset of the first record at or after a time; the end when there is none."""
    consumer = Consumer(consumer_config(settings, "meshyard-read"))
    try:
        found = consumer.offsets_for_times([TopicPartition(topic, 0, at_ms)], timeout=_SECONDS)[0].offset
    finally:
        consumer.close()
    return found if found >= 0 else end_offset(settings, topic, 0)


def snapshot_before(objects: ObjectStore, domain: str, offset: int) -> SchedulerState | None:
    """The newest snapshot that stands at or before an inbox offset and that this version can go on from."""
    for key in reversed(objects.keys(f"snapshots/{domain}")):
        if snapshot_offset(key) > offset:
            continue
        try:
            snapshot = decode_snapshot(objects.get(key))
        except (DecodeError, ValidationError) as error:
            log.warning("snapshot_unreadable", key=key, error=str(error))
            continue
        if snapshot.policy_version == POLICY_VERSION:
            return snapshot.state
        log.warning("snapshot_of_other_policy", key=key, version=snapshot.policy_version)
    return None


def read_inbox(settings: KafkaSettings, codec: Codec, recording: Recording) -> Iterator[InboxRecord]:
    """The inbox from the recording's snapshot up to what is acknowledged; what cannot be decoded is left out, as the
    scheduler did."""
    topic = schedule_topic(recording.domain)
    for message in read_range(settings, topic, 0, start=recording.start, end=recording.committed_end):
        try:
            yield message.offset() or 0, codec.decode(_value(message), "inbox_batch")
        except CodecError:
            continue


def read_work(settings: KafkaSettings, codec: Codec, domain: str) -> dict[int, Sent]:
    """All work that is still kept, by slot."""
    topic = work_topic(domain)
    found: dict[int, Sent] = {}
    for slot in range(partition_count(settings, topic)):
        end = end_offset(settings, topic, slot)
        if end == 0:
            continue
        items: list[tuple[int, Entry]] = []
        for message in read_range(settings, topic, slot, end=end):
            batch = codec.decode(_value(message), "work_batch")
            items.extend((batch["epoch"], item) for item in batch["items"])
        found[slot] = Sent(items=items, complete=first_offset(settings, topic, slot) == 0)
    return found


def _value(message: Message) -> bytes | None:
    value = message.value()
    return value if isinstance(value, bytes) else None
