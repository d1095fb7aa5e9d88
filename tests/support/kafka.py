"""One Kafka for a whole test run, and topics of a test's own.

The broker is a real one: the embedded node, or an existing one named by `MESHYARD_TEST_KAFKA` (`host:port`).
"""

import os
import re
import uuid
from collections.abc import Callable, Iterator, Mapping

import pytest
from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from streams.local.broker import Broker
from streams.local.settings import LocalBrokerSettings

WAIT_SECONDS = 30.0


class KafkaTopics:
    """Topics with names that no other test has."""

    def __init__(self, bootstrap: str, test_name: str) -> None:
        self.bootstrap = bootstrap
        self.prefix = f"{re.sub(r'[^a-zA-Z0-9]+', '-', test_name)[:60]}.{uuid.uuid4().hex[:8]}."
        self.admin = AdminClient({"bootstrap.servers": bootstrap})

    def create(self, name: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> str:
        """Create the topic `<prefix><name>`; returns its full name."""
        return self.create_named(self.prefix + name, partitions, config)

    def create_named(self, topic: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> str:
        """Create a topic with exactly this name; one that exists already is left as it is."""
        request = NewTopic(topic, partitions, 1, config=dict(config or {}))
        try:
            self.admin.create_topics([request], operation_timeout=WAIT_SECONDS)[topic].result(WAIT_SECONDS)
        except KafkaException as error:
            if error.args[0].name() != "TOPIC_ALREADY_EXISTS":
                raise
        return topic

    def group(self, name: str = "group") -> str:
        """A consumer group's name of this test's own."""
        return self.prefix + name


def read_topic(bootstrap: str, topic: str, isolation_level: str = "read_committed") -> list[Message]:
    """Every record that stands in a topic now, partition by partition, in order of offset.

    Reads up to the high watermark, or with `read_committed` up to the last stable offset.
    """
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"read-{uuid.uuid4().hex}",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": isolation_level,
            "auto.offset.reset": "earliest",
        }
    )
    records: list[Message] = []
    try:
        partitions = consumer.list_topics(topic, WAIT_SECONDS).topics[topic].partitions
        consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
        open_partitions = set(partitions)
        while open_partitions:
            message = consumer.poll(WAIT_SECONDS)
            if message is None:
                raise TimeoutError(f"{topic} did not end within {WAIT_SECONDS} s")
            error = message.error()
            if error is None:
                records.append(message)
            elif error.name() == "_PARTITION_EOF":
                open_partitions.discard(message.partition())
            else:
                raise KafkaException(error)
    finally:
        consumer.close()
    return sorted(records, key=lambda record: (record.partition(), record.offset()))


def produce(
    bootstrap: str, topic: str, records: list[tuple[str, bytes]], config: Mapping[str, object] | None = None
) -> None:
    """Write (key, value) records and wait until all are acknowledged."""
    producer = Producer({"bootstrap.servers": bootstrap, "partitioner": "murmur2_random", **(config or {})})
    failures: list[object] = []

    def delivered(error: object, _message: Message) -> None:
        if error is not None:
            failures.append(error)

    for key, value in records:
        producer.produce(topic, value, key, on_delivery=delivered)
    left = producer.flush(WAIT_SECONDS)
    if left or failures:
        raise RuntimeError(f"{left} records not acknowledged, failures: {failures[:3]}")


@pytest.fixture(scope="session")
def kafka_bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`host:port` of the run's one broker."""
    existing = os.environ.get("MESHYARD_TEST_KAFKA")
    if existing:
        yield existing
        return
    broker = Broker(LocalBrokerSettings.from_env(tmp_path_factory.mktemp("kafka")))
    try:
        broker.start(with_parent=True)
        broker.wait_ready()
        yield broker.bootstrap
    finally:
        broker.stop()


@pytest.fixture
def kafka_topics(kafka_bootstrap: str, request: pytest.FixtureRequest) -> KafkaTopics:
    """Creates topics for one test; their names do not collide with another test's."""
    return KafkaTopics(kafka_bootstrap, request.node.name)


@pytest.fixture(scope="session")
def read_records(kafka_bootstrap: str) -> Callable[[str], list[Message]]:
    """Reads all committed records of a topic."""
    return lambda topic: read_topic(kafka_bootstrap, topic)
