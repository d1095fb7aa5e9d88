"""Faust's Kafka transport, with defects of faust-streaming 0.15.3 cured or guarded (its version is pinned for that).

1. Under at_least_once its consumer is read_uncommitted, with no setting for it: records of a worker's aborted
   transaction would be applied as if they had happened. It also waits up to 1.5 s in a fetch.
2. Its offsets to commit come from a list of acked offsets and "gaps" in what was received. A gap is told wrongly after
   transaction markers, aborted records and compaction (the commit then stands still), and after the seek that ends a
   table recovery (the commit then runs ahead of what was processed). Our agents acknowledge each partition in order,
   so the newest acked offset says all; gaps are not kept.
3. At the end of a start (or a rebalance) it resumes the partitions first, seeks to the committed offsets next (one call
   a partition, 200 ms for four topics), and then resumes its flow control, which *empties the agents' queues*. Records
   fetched in between are thrown away, and what the seek brings again is refused as already read: they are lost. Here
   partitions are resumed last.
4. The seek leaves a partition where it is that has no committed offset, or 0: what had been fetched of it before is
   lost on the very first start. Here it goes back to the beginning.
5. A fetch waits with the *live* set of active partitions. When the last of them is paused, aiokafka takes the empty set
   for "all", and what then comes is dropped, because its partition is not active. Here a fetch asks for what was active
   when it began.
6. Other ways to drop a record may be left, so both ends are watched: `Sequence` remembers what came from the broker,
   `dropped_before` tells what an agent was not given, and the role then ends its process with nothing acknowledged;
   the next life reads the record again.
7. It makes two tasks and walks through ten layers for each record (0.2-0.4 ms). Here what one fetch brought of an
   agent's partition is one message, `chunk` holding its records; a partition with many records that no agent has seen
   yet is not fetched from.
8. It runs each consumer in a thread with an event loop of its own, and each fetch goes over there and back: two
   wake-ups and two waits for the interpreter's lock on the way of every job's every step. Our agents never keep the
   loop for long, so here the consumer runs on their loop.

`tests/integration/streams` fails when an upgrade changes any of this.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from inspect import isawaitable
from time import monotonic
from typing import Any, ClassVar

import aiokafka
import structlog
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Transport
from faust.types import TP
from faust.types.tuples import ack_lock

log = structlog.get_logger(__name__)

# How long the broker may wait for records before it answers an empty fetch: while some come, and when all is quiet.
# While a fetch waits, aiokafka cannot ask for the partition whose records it has just handed over; a consumer of one
# partition has no such fetch.
BUSY_WAIT_MS = 30
FETCH_MAX_WAIT_MS = 100
BUSY_SECONDS = 0.5
# In a flood the broker gathers so much, or waits so long, before it answers a fetch: each answer costs it as much as a
# record of 30 kB. Begins and ends at these rates of records a second, looked at once a window.
BULK_BYTES = 32_768
BULK_WAIT_MS = 20
BULK_RATE = 200.0
PROMPT_RATE = 100.0
WINDOW_SECONDS = 0.5
# Records of a partition that wait for an agent; more are not fetched until it has taken some.
MAX_WAITING = 5_000


class Sequence:
    """What of one partition came from the broker and has not been seen by an agent. One thread adds, one takes."""

    def __init__(self) -> None:
        self._waiting: deque[int] = deque()
        self._newest = -1

    def __len__(self) -> int:
        return len(self._waiting)

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


class Pace:
    """Whether records come so fast that they are fetched in bulk. Pure: `now` is in seconds of one monotonic clock."""

    def __init__(self) -> None:
        self.bulk = False
        self._since = 0.0
        self._records = 0

    def note(self, records: int, now: float) -> bool:
        """Takes note of what a fetch brought, and says whether the next one is to be in bulk."""
        self._records += records
        elapsed = now - self._since
        if elapsed >= WINDOW_SECONDS:
            self.bulk = self._records / elapsed >= (PROMPT_RATE if self.bulk else BULK_RATE)
            self._since, self._records = now, 0
        return self.bulk


class OnTheLoop:
    """What Faust takes for the thread of a service; a task on the agents' event loop."""

    def __init__(self, service: "ReadCommittedThread") -> None:
        self._service = service
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to serve; what goes wrong there is told to the service's parent."""
        self._task = asyncio.create_task(self._serve())

    async def _serve(self) -> None:
        try:
            await self._service._serve()
        except Exception as error:  # `_serve` has crashed the app with it, which ends the role
            log.error("consumer_failed", error=repr(error))

    def stop(self) -> None:
        """The service has stopped already."""


class ReadCommittedThread(AIOKafkaConsumerThread):
    """Creates read_committed consumers that wait 100 ms at most in a fetch, and notes what they fetch."""

    consumer: "InOrderConsumer"
    Worker: Any = OnTheLoop
    _busy_until = 0.0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, thread_loop=asyncio.get_running_loop(), **options)
        self._pace = Pace()

    async def call_thread(self, fun: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Calls at once: there is no thread."""
        found = fun(*arguments, **options)
        return await found if isawaitable(found) else found

    async def _keepalive2(self) -> None:
        """Nothing to keep awake."""

    async def _gather_remaining_tasks(self) -> None:
        """The loop's other tasks are the agents'."""

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        # Read when the consumer starts, which is after this.
        consumer._isolation_level = "read_committed"
        consumer._fetch_max_wait_ms = FETCH_MAX_WAIT_MS
        return consumer

    async def seek_to_committed(self) -> Any:
        """Every input back to its committed offset, or to its beginning; all asked at once."""
        return await self.call_thread(self._seek_inputs)

    async def _seek_inputs(self) -> dict[Any, int | None]:
        consumer = self._ensure_consumer()
        places = [p for p in consumer.assignment() if not self.consumer.is_changelog(TP(p.topic, p.partition))]
        offsets = await asyncio.gather(*(consumer.committed(place) for place in places))
        found = dict(zip(places, offsets, strict=True))
        for place, offset in found.items():
            if offset:
                consumer.seek(place, offset)
        start = [place for place, offset in found.items() if not offset]
        if start:
            await consumer.seek_to_beginning(*start)
        return found

    async def _fetch_records(
        self, consumer: Any, active_partitions: set[TP], timeout: float | None = None, max_records: int | None = None
    ) -> Any:
        wanted = {tp for tp in active_partitions if len(self.consumer.sequence(tp)) < MAX_WAITING}
        if not wanted:
            await asyncio.sleep(FETCH_MAX_WAIT_MS / 1000)
            return {}
        found = await super()._fetch_records(consumer, wanted, timeout, max_records)
        now = monotonic()
        if found and len(wanted) > 1:
            self._busy_until = now + BUSY_SECONDS
        wait_ms = BUSY_WAIT_MS if now < self._busy_until else FETCH_MAX_WAIT_MS
        bulk = self._pace.note(sum(map(len, found.values())), now)
        consumer._fetcher._fetch_min_bytes = BULK_BYTES if bulk else 1
        consumer._fetcher._fetch_max_wait_ms = BULK_WAIT_MS if bulk else wait_ms
        for place, records in found.items():
            tp = TP(place.topic, place.partition)
            if not self.consumer.is_changelog(tp):
                sequence = self.consumer.sequence(tp)
                for record in records:
                    sequence.fetched(record.offset)
        return found


class InOrderConsumer(Consumer):
    """Commits what agents acknowledged, for agents that acknowledge each partition in order."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._sequences: dict[TP, Sequence] = {}
        self._held: set[TP] = set()

    def resume_partitions(self, tps: Iterable[TP]) -> None:
        """Changelogs at once; the agents' partitions when the flow is resumed, after seek and emptied queues."""
        inputs = {tp for tp in tps if not self._is_changelog_tp(tp)}
        self._held |= inputs
        super().resume_partitions(set(tps) - inputs)

    def resume_flow(self) -> None:
        """Lets records through again, those of held partitions too."""
        super().resume_flow()
        held, self._held = self._held, set()
        super().resume_partitions(held)

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Any]]:
        """What a fetch brought: changelogs record by record, an agent's partition as one message with all of them."""
        records, active = await self._wait_next_records(timeout)
        generation = self.app.consumer_generation_id
        if records is None or self.should_stop:
            return
        if not self.flow_active:
            await self.perform_seek()
            return
        for tp, found in records.items():
            if not self.flow_active or self.app.consumer_generation_id != generation:
                break
            if not found or (active is not None and tp not in active and tp not in self._buffered_partitions):
                continue
            if not self.is_changelog(tp):
                message: Any = self._to_message(tp, found[-1])
                message.chunk = found
                yield tp, message
            else:
                for record in found:
                    yield tp, self._to_message(tp, record)

    def is_changelog(self, tp: TP) -> bool:
        """Whether a table is recovered from it; all else is read by an agent."""
        return bool(self._is_changelog_tp(tp))

    def sequence(self, tp: TP) -> Sequence:
        """The partition's sequence, made at the first call."""
        return self._sequences.setdefault(tp, Sequence())

    def dropped_before(self, tp: TP, offset: int) -> list[int]:
        """An agent got this record; which fetched records before it were never given to one."""
        return self.sequence(tp).given(offset)

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Faust warns of every quiet partition, changelogs too; whether we make progress is the role's to watch."""

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
