"""Faust's Kafka transport, with defects of faust-streaming 0.15.3 cured or guarded (its version is pinned for that).

1. Under at_least_once its consumer is read_uncommitted, with no setting for it: records of a worker's aborted
   transaction would be applied as if they had happened. It also waits up to 1.5 s in a fetch.
2. Its offsets to commit come from a list of acked offsets and "gaps" in what was received. A gap is told wrongly after
   transaction markers, aborted records and compaction (the commit then stands still), and after the seek that ends a
   table recovery (the commit then runs ahead of what was processed). Our agents acknowledge each partition in order,
   so the newest acked offset says all; gaps are not kept.
3. Between the fetch and the agent it can drop records: seen as one lost record in 200 when a process had been killed
   and started again under load. Which of its queues, flags and races does it is not known, so both ends are watched:
   `fetched` remembers what came from the broker, `dropped_before` tells what an agent was not given, and the role then
   ends its process with nothing acknowledged; the next life reads the record again.

`tests/integration/streams` fails when an upgrade changes any of this.
"""

from collections import deque
from typing import Any, ClassVar

import aiokafka
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Transport
from faust.types import TP
from faust.types.tuples import ack_lock

FETCH_MAX_WAIT_MS = 100


class Sequence:
    """What of one partition came from the broker and has not been seen by an agent. One thread adds, one takes."""

    def __init__(self) -> None:
        self._waiting: deque[int] = deque()
        self._newest = -1

    def fetched(self, offset: int) -> None:
        """A record came from the broker; after a seek the same may come again."""
        if offset > self._newest:
            self._newest = offset
            self._waiting.append(offset)

    def given(self, offset: int) -> list[int]:
        """An agent got a record: the offsets before it that no agent got. A record that comes again gives []."""
        dropped = []
        while self._waiting and self._waiting[0] <= offset:
            first = self._waiting.popleft()
            if first != offset:
                dropped.append(first)
        return dropped


class ReadCommittedThread(AIOKafkaConsumerThread):
    """Creates read_committed consumers that wait 100 ms at most in a fetch, and notes what they fetch."""

    consumer: "InOrderConsumer"

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        # Read when the consumer starts, which is after this.
        consumer._isolation_level = "read_committed"
        consumer._fetch_max_wait_ms = FETCH_MAX_WAIT_MS
        return consumer

    async def _fetch_records(self, *arguments: Any, **options: Any) -> Any:
        found = await super()._fetch_records(*arguments, **options)
        for place, records in found.items():
            if self.app.topics.acks_enabled_for(place.topic):
                sequence = self.consumer.sequence(TP(place.topic, place.partition))
                for record in records:
                    sequence.fetched(record.offset)
        return found


class InOrderConsumer(Consumer):
    """Commits what agents acknowledged, for agents that acknowledge each partition in order."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._sequences: dict[TP, Sequence] = {}

    def sequence(self, tp: TP) -> Sequence:
        """The partition's sequence, made at the first call."""
        return self._sequences.setdefault(tp, Sequence())

    def dropped_before(self, tp: TP, offset: int) -> list[int]:
        """An agent got this record; which fetched records before it were never given to one."""
        return self.sequence(tp).given(offset)

    def _new_consumer_thread(self) -> ReadCommittedThread:
        return ReadCommittedThread(self, loop=self.loop, beacon=self.beacon)

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Gaps say nothing here: what was acked in order is what may be committed."""

    def _new_offset(self, tp: TP) -> int | None:
        with ack_lock:
            acked = self._acked[tp]
            if not acked:
                return None
            newest = max(acked)
            self._acked_index[tp].difference_update(acked)
            acked.clear()
        return newest + 1


class ExactTransport(Transport):
    """Faust's transport with the classes above."""

    Consumer: ClassVar[type[InOrderConsumer]] = InOrderConsumer
