"""Consumers: read_committed always, offsets stored by the code that knows when work is done."""

import time
from collections.abc import Iterable, Iterator
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from streams.kafka.settings import KafkaSettings

_GROUP_NOT_READY = (
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
)


def consumer_config(settings: KafkaSettings, group: str) -> dict[str, Any]:
    """librdkafka settings of every consumer; nothing commits by itself."""
    return {
        **settings.client(),
        "group.id": group,
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "isolation.level": "read_committed",
        "enable.partition.eof": False,
        "fetch.wait.max.ms": 500,
        "fetch.error.backoff.ms": 100,
        "queued.max.messages.kbytes": 16_384,
    }


def read_range(
    settings: KafkaSettings, topic: str, partition: int, *, start: int = OFFSET_BEGINNING, end: int
) -> Iterator[Message]:
    """Committed records of one partition with offsets in [start, end). Raises KafkaException."""
    consumer = Consumer({**consumer_config(settings, "meshyard-read"), "enable.partition.eof": True})
    place = TopicPartition(topic, partition)
    try:
        low, _ = consumer.get_watermark_offsets(place, timeout=30)
        first = low if start == OFFSET_BEGINNING else max(low, start)
        if first >= end:
            return
        consumer.assign([TopicPartition(topic, partition, first)])
        while True:
            for message in consumer.consume(500, timeout=0.1):  # it waits for all 500, past the end of the partition
                error = message.error()
                if error is None:
                    if (message.offset() or 0) >= end:
                        return
                    yield message
                elif error.code() != KafkaError._PARTITION_EOF:
                    raise KafkaException(error)
            # Aborted records and transaction markers have offsets but are never delivered: the position tells.
            position = consumer.position([place])[0].offset
            if position >= end:
                return
    finally:
        consumer.close()


def read_all(settings: KafkaSettings, topic: str, partitions: Iterable[int]) -> Iterator[Message]:
    """Every committed record that stands in a topic now, partition by partition."""
    for partition in partitions:
        yield from read_range(settings, topic, partition, end=end_offset(settings, topic, partition))


def end_offset(settings: KafkaSettings, topic: str, partition: int) -> int:
    """The last stable offset: where the next committed record will stand at the earliest."""
    consumer = Consumer(consumer_config(settings, "meshyard-read"))
    try:
        _, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=30)
        return int(high)
    finally:
        consumer.close()


def first_offset(settings: KafkaSettings, topic: str, partition: int) -> int:
    """The oldest offset that a partition still holds."""
    consumer = Consumer(consumer_config(settings, "meshyard-read"))
    try:
        low, _ = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=30)
        return int(low)
    finally:
        consumer.close()


def partition_count(settings: KafkaSettings, topic: str) -> int:
    """How many partitions a topic has. Raises KafkaException when it does not exist."""
    consumer = Consumer(consumer_config(settings, "meshyard-read"))
    try:
        found = consumer.list_topics(topic, timeout=30).topics[topic]
        if found.error is not None:
            raise KafkaException(found.error)
        return len(found.partitions)
    finally:
        consumer.close()


def committed_offset(settings: KafkaSettings, group: str, topic: str, partition: int) -> int | None:
    """What a group has committed, None before the first commit. Raises KafkaException.

    While a broker still loads the group (just created, or just moved) it answers NOT_COORDINATOR or
    COORDINATOR_LOAD_IN_PROGRESS, which librdkafka hands on here as errors to be asked again.
    """
    consumer = Consumer(consumer_config(settings, group))
    deadline = time.monotonic() + 30
    try:
        while True:
            try:
                found = consumer.committed([TopicPartition(topic, partition)], timeout=10)[0].offset
                return found if found >= 0 else None
            except KafkaException as error:
                if error.args[0].code() not in _GROUP_NOT_READY or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
    finally:
        consumer.close()
