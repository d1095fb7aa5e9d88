"""Faust's Kafka transport with two defects of faust-streaming 0.15.3 cured (its version is pinned for that).

1. Under at_least_once its consumer is read_uncommitted, with no setting for it: records of a worker's aborted
   transaction would be applied as if they had happened. It also waits up to 1.5 s in a fetch.
2. `_add_gap(tp, from, to)` is called with the received record's own offset as `to`, so after every gap (transaction
   markers, aborted records, compaction) that offset stands in the acked list twice, and the commit stops there: one
   transaction further per commit, and thousands of records applied again after a restart.

`tests/integration/streams/test_transport.py` fails when an upgrade changes either.
"""

from typing import Any, ClassVar

import aiokafka
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Transport
from faust.types import TP

FETCH_MAX_WAIT_MS = 100


class ReadCommittedThread(AIOKafkaConsumerThread):
    """Creates read_committed consumers that wait 100 ms at most in a fetch."""

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        # Read when the consumer starts, which is after this.
        consumer._isolation_level = "read_committed"
        consumer._fetch_max_wait_ms = FETCH_MAX_WAIT_MS
        return consumer


class GapExactConsumer(Consumer):
    """Counts only what lies between two received records as a gap."""

    def _new_consumer_thread(self) -> ReadCommittedThread:
        return ReadCommittedThread(self, loop=self.loop, beacon=self.beacon)

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        await super()._add_gap(tp, offset_from, offset_to - 1)


class ExactTransport(Transport):
    """Faust's transport with the two subclasses above."""

    Consumer: ClassVar[type[GapExactConsumer]] = GapExactConsumer
