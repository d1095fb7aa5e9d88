"""What admission and scheduler share: a Faust app inside our own event loop, health by progress, a clean end."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from schemas.codec import Codec
from streams.agents.batches import Incoming, batches
from streams.app import raw_topic
from streams.clock import Clock, SystemClock
from streams.kafka.dead import dead_letter, outgoing_dead
from streams.kafka.producer import AsyncProducer, Outgoing

log = structlog.get_logger(__name__)
HANG_SECONDS = 45.0
QUIET_SECONDS = 20.0


@dataclass(frozen=True, kw_only=True)
class Pulse:
    """A topic that a role itself writes to all the time and reads: while it lives, records come.

    ends: the last stable offset of each partition that the role reads; asked in a thread.
    """

    topic: str
    ends: Callable[[], Mapping[int, int]]


class Thread(Protocol):
    """Something that runs beside a role, in a thread of its own."""

    def start(self) -> None:
        """Begins."""

    def stop(self) -> None:
        """Ends, and waits for that; may block."""


class RoleFailed(RuntimeError):
    """A role cannot go on; its process ends with an error and the supervisor starts it again."""


def stalled(seen: Mapping[int, int], ends: Mapping[int, int]) -> list[int]:
    """Partitions of the pulse topic with records that could be read and were not.

    seen: the newest offset that an agent got; ends: the last stable offset. Records behind an open transaction are
    beyond it: waiting for those is no fault of ours, and starting again would not help. A transaction's marker just
    before the end counts as readable, so a stall of more than QUIET_SECONDS may cost a start that was not needed;
    brokers end transactions after 10 s.
    """
    return [partition for partition, end in ends.items() if end > seen.get(partition, -1) + 1]


class FaustRole:
    """One Faust app and the guard over it.

    Whatever goes wrong in a batch ends the process with nothing acknowledged; the next life reads it again.
    """

    def __init__(
        self, name: str, app: Any, codec: Codec, producer: AsyncProducer, pulse: Pulse, clock: Clock | None = None
    ) -> None:
        self.name = name
        self._pulse = pulse
        self._seen: dict[int, int] = {}
        self.app = app
        self.codec = codec
        self.producer = producer
        self.clock = clock or SystemClock()
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._busy_since: float | None = None
        self._last_pulse = self.clock.monotonic_seconds()
        self._tasks: list[asyncio.Task[None]] = []
        self._threads: list[Thread] = []

    async def start(self) -> None:
        """Starts the app and waits until it has its partitions and its tables."""
        for thread in self._threads:
            thread.start()
        await self.app.start()
        self._last_pulse = self.clock.monotonic_seconds()
        self._tasks.append(asyncio.create_task(self._watch()))
        log.info("role_started", name=self.name)

    async def stop(self) -> None:
        """Finishes the batch at hand, commits and leaves the group."""
        for task in self._tasks:
            task.cancel()
        await self.app.stop()
        for thread in self._threads:
            await asyncio.to_thread(thread.stop)
        log.info("role_stopped", name=self.name)

    def beside(self, thread: Thread) -> None:
        """Starts and stops with the role."""
        self._threads.append(thread)

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

    def agent(self, topic: str, limit: int, work: Callable[[list[Incoming]], Awaitable[None]]) -> None:
        """Reads a topic in batches of at most `limit` records; each is acknowledged when `work` is done with it.

        If `work` fails, or Faust has dropped records, the process ends and nothing is acknowledged: an exception that
        left the agent would acknowledge its event and lose it.
        """

        async def read(stream: Any) -> None:
            try:
                async for records in batches(stream.noack(), limit):
                    self._busy_since = self.clock.monotonic_seconds()
                    await work(records)
                    self._busy_since = None
                    self._felt(records)
            except Exception as error:
                self.fail(error)
                await asyncio.Event().wait()

        self.app.agent(raw_topic(self.app, topic), name=topic)(read)

    async def bury(self, record: Incoming, *, reason: str, detail: str) -> None:
        """Sends a record to the dead letters and waits for the ack."""
        await self.producer.send_all([self.letter(record, reason=reason, detail=detail)])

    def letter(self, record: Incoming, *, reason: str, detail: str) -> Outgoing:
        """A record as a dead letter, to be sent with others."""
        place = (record.topic, record.partition, record.offset)
        schema_id = self.codec.schema_id(record.value)
        letter = dead_letter(
            place,
            record.key,
            record.value,
            reason=reason,
            detail=detail,
            role=self.name,
            at=self.clock.now_ms(),
            **({} if schema_id is None else {"schema_id": schema_id}),
        )
        log.warning("dead_letter", topic=place[0], partition=place[1], offset=place[2], reason=reason)
        return outgoing_dead(place, self.codec.encode_large("dead_letter", letter))

    async def _watch(self) -> None:
        """Ends the process when an agent or the app has died while the process lives on, or a batch hangs."""
        while not self.failed.done():
            await asyncio.sleep(1.0)
            busy = self._busy_since
            if self.app.crashed:
                self.fail(RuntimeError(f"Faust app crashed: {self.app.crash_reason!r}"))
            elif busy is not None and self.clock.monotonic_seconds() - busy > HANG_SECONDS:
                self.fail(RuntimeError("a batch has hung"))
            elif busy is None and self.clock.monotonic_seconds() - self._last_pulse > QUIET_SECONDS:
                await self._check_pulse()

    def _felt(self, records: list[Incoming]) -> None:
        """Notes which records of the pulse topic an agent got."""
        if records[-1].topic != self._pulse.topic:
            return
        self._last_pulse = self.clock.monotonic_seconds()
        for record in records:
            self._seen[record.partition] = record.offset

    async def _check_pulse(self) -> None:
        """No pulse for long: ends the process if there was one to feel."""
        ends = await asyncio.to_thread(self._pulse.ends)
        self._last_pulse = self.clock.monotonic_seconds()
        missed = stalled(self._seen, ends)
        if missed:
            self.fail(RuntimeError(f"{self._pulse.topic}: partitions {missed} are not read any more"))
