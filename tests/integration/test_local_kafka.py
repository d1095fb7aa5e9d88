"""The embedded broker as its users meet it."""

from tests.support.kafka import KafkaTopics, produce, read_topic


def test_records_written_are_read_back(kafka_topics: KafkaTopics) -> None:
    topic = kafka_topics.create("records", partitions=3)
    produce(kafka_topics.bootstrap, topic, [(f"key-{n}", b"%d" % n) for n in range(100)])
    assert {record.value() for record in read_topic(kafka_topics.bootstrap, topic)} == {b"%d" % n for n in range(100)}
