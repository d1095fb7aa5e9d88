"""Takes many events of a Faust stream at once, without waiting for more.

Faust's own `take` waits for its time-out when there are fewer events than asked for; here a batch ends when nothing
more stands in the stream's queue. While a batch is worked on, the next one gathers.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any


class RecordsDropped(RuntimeError):
    """Records came from the broker and were never given to the agent."""

    def __init__(self, topic: str, partition: int, offsets: list[int]) -> None:
        self.offsets = offsets
        super().__init__(f"{topic}/{partition}: {len(offsets)} records dropped before the agent, from {offsets[0]}")


async def batches(stream: Any, limit: int) -> AsyncIterator[list[Any]]:
    """Lists of 1 to `limit` events of a `noack()` stream. They are acknowledged when the caller asks for the next
    list, that is, after the caller has done all that they demand. Raises RecordsDropped before a list that follows a
    hole; nothing after the hole is acknowledged then.
    """
    gathered: list[Any] = []
    queue = stream.channel.queue
    consumer = stream.app.consumer
    async for event in stream.events():
        message = event.message
        dropped = consumer.dropped_before(message.tp, message.offset)
        if dropped:
            raise RecordsDropped(message.topic, message.partition, dropped)
        gathered.append(event)
        if len(gathered) < limit:
            if queue.empty():
                await asyncio.sleep(0)  # let the consumer hand over what it has fetched already
            if not queue.empty():
                continue
        yield gathered
        for done in gathered:
            await stream.ack(done)
        gathered = []
