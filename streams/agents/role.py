"""What admission and scheduler share: a Faust app inside our own event loop, health by progress, a clean end."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from schemas.codec import Codec
from streams.agents.batches import batches
from streams.app import raw_topic
from streams.clock import Clock, SystemClock
from streams.kafka.dead import dead_letter, outgoing_dead
from streams.kafka.producer import AsyncProducer

log = structlog.get_logger(__name__)
STALL_SECONDS = 15.0


class RoleFailed(RuntimeError):
    """A role cannot go on; its process ends with an error and the supervisor starts it again."""


class FaustRole:
    """One Faust app and the guard over it.

    Whatever goes wrong in a batch ends the process with nothing acknowledged; the next life reads it again.
    """

    def __init__(self, name: str, app: Any, codec: Codec, producer: AsyncProducer, clock: Clock | None = None) -> None:
        self.name = name
        self.app = app
        self.codec = codec
        self.producer = producer
        self.clock = clock or SystemClock()
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._busy_since: float | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Starts the app and waits until it has its partitions and its tables."""
        await self.app.start()
        self._tasks.append(asyncio.create_task(self._watch()))
        log.info("role_started", name=self.name)

    async def stop(self) -> None:
        """Finishes the batch at hand, commits and leaves the group."""
        for task in self._tasks:
            task.cancel()
        await self.app.stop()
        log.info("role_stopped", name=self.name)

    def every(self, seconds: float, call: Callable[[], Awaitable[None]]) -> None:
        """Calls again and again; a failure ends the role."""

        async def loop() -> None:
            due = self.clock.monotonic_seconds()
            while True:
                try:
                    await call()
                except Exception as error:
                    self.fail(error)
                    return
                due = max(due + seconds, self.clock.monotonic_seconds())
                await asyncio.sleep(due - self.clock.monotonic_seconds())

        self._tasks.append(asyncio.create_task(loop()))

    def fail(self, error: BaseException) -> None:
        """Ends the role: whoever runs it sees `failed`."""
        log.error("role_failed", name=self.name, error=repr(error))
        if not self.failed.done():
            self.failed.set_exception(RoleFailed(f"{self.name}: {error!r}"))

    def agent(self, topic: str, limit: int, work: Callable[[list[Any]], Awaitable[None]]) -> None:
        """Reads a topic in batches of at most `limit` events; each is acknowledged when `work` is done with it.

        If `work` fails, or Faust has dropped records, the process ends and nothing is acknowledged: an exception that
        left the agent would acknowledge its event and lose it.
        """

        async def read(stream: Any) -> None:
            try:
                async for events in batches(stream.noack(), limit):
                    self._busy_since = self.clock.monotonic_seconds()
                    await work(events)
                    self._busy_since = None
            except Exception as error:
                self.fail(error)
                await asyncio.Event().wait()

        self.app.agent(raw_topic(self.app, topic), name=topic)(read)

    async def bury(self, event: Any, *, reason: str, detail: str) -> None:
        """Sends an event's record to the dead letters and waits for the ack."""
        message = event.message
        place = (message.topic, message.partition, message.offset)
        schema_id = self.codec.schema_id(message.value)
        extra = {} if schema_id is None else {"schema_id": schema_id}
        record = dead_letter(
            place,
            message.key,
            message.value,
            reason=reason,
            detail=detail,
            role=self.name,
            at=self.clock.now_ms(),
            **extra,
        )
        log.warning("dead_letter", topic=place[0], partition=place[1], offset=place[2], reason=reason)
        await self.producer.send_all([outgoing_dead(place, self.codec.encode_large("dead_letter", record))])

    async def _watch(self) -> None:
        """Ends the process when an agent or the app has died while the process lives on, or a batch hangs."""
        while not self.failed.done():
            await asyncio.sleep(1.0)
            busy = self._busy_since
            if self.app.crashed:
                self.fail(RuntimeError(f"Faust app crashed: {self.app.crash_reason!r}"))
            elif busy is not None and self.clock.monotonic_seconds() - busy > STALL_SECONDS + 30.0:
                self.fail(RuntimeError("a batch has hung"))
