"""Compares ClickHouse with Kafka, partition by partition: counts, distinct offsets, sums of record hashes.

Kafka is read by itself, record by record, so that an error of the sink cannot hide in both.
"""

from dataclasses import dataclass

from clickhouse_driver import Client

from analytics.client import connect
from analytics.records import Raw, is_row, record_hash
from schemas.codec import Codec
from schemas.topics import EVENTS
from streams.kafka.consumer import end_offset, first_offset, partition_count, read_range
from streams.kafka.dead import dead_record
from streams.kafka.settings import KafkaSettings

_WRAP = 2**64
_STORED = """
SELECT count(), uniqExact(offset), sum(record_hash)
FROM job_events
WHERE topic = {topic:String} AND partition = {partition:UInt32} AND offset >= {start:UInt64} AND offset < {end:UInt64}
"""


@dataclass(frozen=True, kw_only=True)
class PartitionReport:
    """One partition, over offsets [start, end): what Kafka still holds and ClickHouse has of it.

    poison: committed records that are no JobEvent; they belong into the dead letters and have no row.
    """

    partition: int
    start: int
    end: int
    kafka_rows: int
    kafka_hash: int
    poison: int
    stored_rows: int
    stored_distinct: int
    stored_hash: int

    @property
    def is_equal(self) -> bool:
        """The same records, each once."""
        same = self.stored_hash == self.kafka_hash and self.stored_rows == self.kafka_rows
        return same and self.duplicates == 0

    @property
    def duplicates(self) -> int:
        """Rows beyond the first of an offset."""
        return self.stored_rows - self.stored_distinct

    @property
    def missing(self) -> int:
        """Records without a row: lost, or not yet there."""
        return max(0, self.kafka_rows - self.stored_distinct)


def verify(kafka: KafkaSettings, clickhouse_url: str, codec: Codec, topic: str = EVENTS) -> list[PartitionReport]:
    """A report for each partition, as of the last stable offsets at the call.

    Raises:
        KafkaException: Kafka cannot be read.
        clickhouse_driver.errors.Error, OSError, EOFError: ClickHouse cannot be asked.
    """
    client = connect(clickhouse_url)
    try:
        count = partition_count(kafka, topic)
        return [_report(kafka, client, codec, topic, partition) for partition in range(count)]
    finally:
        client.disconnect()


def _report(kafka: KafkaSettings, client: Client, codec: Codec, topic: str, partition: int) -> PartitionReport:
    start, end = first_offset(kafka, topic, partition), end_offset(kafka, topic, partition)
    rows = total = poison = 0
    for message in read_range(kafka, topic, partition, start=start, end=end):
        place, key, value = dead_record(message)
        raw = Raw(topic=place[0], partition=place[1], offset=place[2], key=key, value=value)
        if is_row(raw, codec):
            rows += 1
            total = (total + record_hash(raw)) % _WRAP
        else:
            poison += 1
    bounds = {"topic": topic, "partition": partition, "start": start, "end": end}
    ((stored, distinct, stored_hash),) = client.execute(_STORED, bounds)
    return PartitionReport(
        partition=partition,
        start=start,
        end=end,
        kafka_rows=rows,
        kafka_hash=total,
        poison=poison,
        stored_rows=stored,
        stored_distinct=distinct,
        stored_hash=stored_hash,
    )
