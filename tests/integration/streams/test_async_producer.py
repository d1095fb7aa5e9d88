"""The coroutines' producer against a real broker: order, company, failures."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from confluent_kafka import KafkaException

from streams.kafka.producer import AsyncProducer, Outgoing
from streams.kafka.settings import KafkaSettings
from tests.support.kafka import KafkaTopics, read_topic


def use(bootstrap: str, work: Callable[[AsyncProducer], Awaitable[None]]) -> None:
    async def main() -> None:
        async with AsyncProducer(KafkaSettings(bootstrap=bootstrap)) as producer:
            async with asyncio.timeout(60):
                await work(producer)

    asyncio.run(main())


@pytest.mark.parametrize("count", [1, 3, 500])
def test_a_batch_keeps_its_order_and_is_there_when_it_was_awaited(kafka_topics: KafkaTopics, count: int) -> None:
    topic = kafka_topics.create("order")

    async def work(producer: AsyncProducer) -> None:
        await producer.send_all(Outgoing(topic, "k", str(number).encode()) for number in range(count))
        assert len(read_topic(kafka_topics.bootstrap, topic)) == count
        await producer.send(topic, None, None, [("h", b"1")])

    use(kafka_topics.bootstrap, work)
    records = read_topic(kafka_topics.bootstrap, topic)
    assert [record.value() for record in records] == [*(str(number).encode() for number in range(count)), None]
    assert records[-1].headers() == [("h", b"1")]


def test_many_that_send_at_the_same_time_all_get_their_answer(kafka_topics: KafkaTopics) -> None:
    topic = kafka_topics.create("many", partitions=3)

    async def work(producer: AsyncProducer) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(300):
                group.create_task(producer.send(topic, str(number), b"x"))
        await producer.send_all([])

    use(kafka_topics.bootstrap, work)
    assert sorted(int(record.key() or "") for record in read_topic(kafka_topics.bootstrap, topic)) == list(range(300))


@pytest.mark.parametrize("company", [0, 20])
def test_a_failed_delivery_is_raised_and_the_next_batch_goes(kafka_topics: KafkaTopics, company: int) -> None:
    topic = kafka_topics.create("failure")
    good = [Outgoing(topic, "k", b"x")] * company

    async def work(producer: AsyncProducer) -> None:
        with pytest.raises(KafkaException):
            await producer.send_all([*good, Outgoing(topic, "k", b"x", 7), *good])
        with pytest.raises(KafkaException):
            await producer.send_all([*good, Outgoing(topic, "k", bytes(2_000_000))])
        await producer.send(topic, "k", b"last")

    use(kafka_topics.bootstrap, work)
    assert b"last" in [record.value() for record in read_topic(kafka_topics.bootstrap, topic)]
