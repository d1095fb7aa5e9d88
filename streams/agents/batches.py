"""Takes many records of a Faust stream at once, without waiting for more.

Our transport hands over what one fetch brought of a partition as one Faust event (an event costs Faust 0.2-0.4 ms, a
record in it next to nothing); here events become lists of records again. Faust's own `take` waits for its time-out
when there are fewer events than asked for; here a batch ends when nothing more stands in the stream's queue. While a
batch is worked on, the next one gathers.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any


class RecordsDropped(RuntimeError):
    """Records came from the broker and were never given to the agent."""

    def __init__(self, topic: str, partition: int, offsets: list[int]) -> None:
        self.offsets = offsets
        super().__init__(f"{topic}/{partition}: {len(offsets)} records dropped before the agent, from {offsets[0]}")


class Incoming:
    """One record as the broker gave it. timestamp_ms: its append time, on the topics whose broker's clock stamps."""

    __slots__ = ("headers", "key", "offset", "partition", "timestamp_ms", "topic", "value")

    def __init__(self, record: Any) -> None:
        self.topic: str = record.topic
        self.partition: int = record.partition
        self.offset: int = record.offset
        self.timestamp_ms: int = record.timestamp
        self.key: bytes | None = record.key
        self.value: bytes | None = record.value
        self.headers: Any = record.headers

    @property
    def message(self) -> "Incoming":
        """Itself: an agent may treat it as a Faust event."""
        return self


async def batches(stream: Any, limit: int) -> AsyncIterator[list[Incoming]]:
    """Lists of 1 to `limit` records of a `noack()` stream. They are acknowledged when the caller asks for the next
    list, that is, after the caller has done all that they demand. Raises RecordsDropped before a list that follows a
    hole; nothing after the hole is acknowledged then.
    """
    gathered: list[Incoming] = []
    events: list[Any] = []
    queue = stream.channel.queue
    consumer = stream.app.consumer
    async for event in stream.events():
        message = event.message
        for record in message.chunk:
            dropped = consumer.dropped_before(message.tp, record.offset)
            if dropped:
                raise RecordsDropped(message.topic, message.partition, dropped)
            gathered.append(Incoming(record))
        events.append(event)
        if len(gathered) < limit:
            if queue.empty():
                await asyncio.sleep(0)  # let the consumer hand over what it has fetched already
            if not queue.empty():
                continue
        for start in range(0, len(gathered), limit):
            yield gathered[start : start + limit]
        for done in events:
            await stream.ack(done)
        gathered, events = [], []
