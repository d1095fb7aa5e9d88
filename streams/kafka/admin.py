"""Creates and lists the catalogue's topics."""

import time
from collections.abc import Iterable
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from schemas.topics import Topic
from streams.kafka.consumer import consumer_config
from streams.kafka.settings import KafkaSettings


class TopicMismatch(RuntimeError):
    """A topic exists with another number of partitions than the catalogue wants."""

    def __init__(self, topic: str, wanted: int, found: int) -> None:
        self.topic = topic
        super().__init__(
            f"topic {topic} has {found} partitions, the catalogue wants {wanted}; "
            "set MESHYARD_USER_PARTITIONS as at installation"
        )


@dataclass(frozen=True, kw_only=True)
class TopicState:
    """A topic of the catalogue as the broker has it; partitions 0 when it is absent."""

    topic: Topic
    partitions: int


def partitions_of(topic: Topic, settings: KafkaSettings) -> int:
    """How many partitions a topic has in this installation."""
    return topic.partitions if topic.partitions is not None else settings.user_partitions


def create_topics(settings: KafkaSettings, topics: Iterable[Topic]) -> list[str]:
    """Creates what is absent and returns the names created. Raises TopicMismatch, KafkaException."""
    client = AdminClient(settings.client())
    wanted = {topic.name: topic for topic in topics}
    for state in list_topics(settings, wanted.values()):
        expected = partitions_of(state.topic, settings)
        if state.partitions not in (0, expected):
            raise TopicMismatch(state.topic.name, expected, state.partitions)
        if state.partitions:
            del wanted[state.topic.name]
    if not wanted:
        return []
    created = []
    futures = client.create_topics([_new_topic(topic, settings) for topic in wanted.values()], operation_timeout=30)
    for name, future in futures.items():
        try:
            future.result()
            created.append(name)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:  # another role was faster
                raise
    _wait_for_leaders(settings, [(topic.name, partitions_of(topic, settings)) for topic in wanted.values()])
    return created


def _wait_for_leaders(settings: KafkaSettings, topics: list[tuple[str, int]], timeout_seconds: float = 30.0) -> None:
    """A topic exists before its partitions have leaders; until then whoever asks for offsets is refused."""
    consumer = Consumer(consumer_config(settings, "meshyard-admin"))
    deadline = time.monotonic() + timeout_seconds
    try:
        for place in [TopicPartition(name, partition) for name, count in topics for partition in range(count)]:
            while True:
                try:
                    consumer.get_watermark_offsets(place, timeout=10)
                    break
                except KafkaException:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.05)
    finally:
        consumer.close()


def list_topics(settings: KafkaSettings, topics: Iterable[Topic]) -> list[TopicState]:
    """What the broker has of the catalogue."""
    found = AdminClient(settings.client()).list_topics(timeout=30).topics
    return [TopicState(topic=t, partitions=len(found[t.name].partitions) if t.name in found else 0) for t in topics]


def _new_topic(topic: Topic, settings: KafkaSettings) -> NewTopic:
    config = {
        "retention.ms": str(topic.retention_ms),
        "cleanup.policy": "compact" if topic.compacted else "delete",
        **topic.config,
    }
    if topic.compacted:
        config["min.cleanable.dirty.ratio"] = "0.2"
        config["segment.ms"] = "3600000"
    return NewTopic(
        topic.name,
        num_partitions=partitions_of(topic, settings),
        replication_factor=settings.replication,
        config=config,
    )
