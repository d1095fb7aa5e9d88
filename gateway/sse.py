"""Server-sent events of one job (WHATWG HTML, "Server-sent events").

A stream reads the job's events from the read model, those after the last id that the client has; news only wakes it.
So a client that comes back with Last-Event-ID, at whatever gateway, misses nothing and sees nothing twice: ids are
places in jobs.events, and the object in a frame is the job as it was at that event.
"""

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

import msgspec
from starlette.types import Message, Receive, Scope, Send

from gateway.auth import Principal
from gateway.fold import StoredEvent, distinct, fold
from gateway.hub import Subscription
from gateway.jobs import JobJson, Standing, job_json
from gateway.problems import Problem
from gateway.services import Services
from gateway.tables import StoredJob
from schemas.codec import Record
from schemas.jobs import JobState

HEARTBEAT_SECONDS: Final = 15.0
# How soon a revoked key ends its open streams, at the latest.
_CHECK_SECONDS: Final = 4.0
# How often the place of a job that waits is looked at, and what change of its times is worth a word.
STANDING_SECONDS: Final = 2.0
_SHIFT_SECONDS: Final = 1.0
_SHIFT_SHARE: Final = 0.1
_WAITING: Final = frozenset({JobState.HELD, JobState.QUEUED})
_EVENT_ID: Final = re.compile(r"(\d{1,9})-(\d{1,18})\Z", re.ASCII)
_HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]


def parse_last_event_id(text: str | None) -> tuple[int, int] | None:
    """Partition and offset of a Last-Event-ID; None where there is none. Raises Problem."""
    if text is None or text.strip() == "":
        return None
    found = _EVENT_ID.match(text.strip())
    if found is None:
        raise Problem(
            "invalid_header",
            "the Last-Event-ID is none of ours",
            "send the id of the last event that came, or leave the header out",
            field="Last-Event-ID",
        )
    return int(found[1]), int(found[2])


def remaining(stored: StoredJob, last: tuple[int, int] | None) -> list[tuple[StoredEvent, JobJson]]:
    """The job's events after `last`, each with the job as it was then; nothing follows the first final one."""
    events = distinct(stored.events)
    found = []
    for index, event in enumerate(events):
        if last is None or event.partition != last[0] or event.offset > last[1]:
            found.append((event, job_json(stored.row, fold(events[: index + 1]))))
        if event.final:
            break
    return found


def ended(stored: StoredJob, last: tuple[int, int] | None) -> bool:
    """Whether a client that has seen `last` has seen all that will ever come."""
    return fold(stored.events).terminal and not remaining(stored, last)


def worth_telling(new: Standing, told: Standing | None) -> bool:
    """Whether a job that waits stands otherwise than its user was told: another place, priority or pause, or a start
    that moved by more than a second and a tenth of the wait. A prediction that comes true is no news."""
    if told is None:
        return bool(new.queue_position or new.eta or new.priority or new.paused)
    if (new.queue_position, new.priority, new.paused) != (told.queue_position, told.priority, told.paused):
        return True
    if new.eta is None or told.eta is None:
        return new.eta is not told.eta
    elapsed = (new.now_ms - told.now_ms) / 1000
    return any(
        abs(now - max(0.0, before - elapsed)) > max(_SHIFT_SECONDS, _SHIFT_SHARE * now)
        for now, before in ((new.eta.p50, told.eta.p50), (new.eta.p90, told.eta.p90))
    )


class EventStream:
    """An ASGI response that sends a job's events until its end."""

    def __init__(self, services: Services, principal: Principal, job_id: str, last: tuple[int, int] | None) -> None:
        self._services = services
        self._principal = principal
        self._job = (principal.user_id, job_id)
        self._last = last
        self._gone = False

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        """Serves the stream; raises Problem before its first byte when the user has too many open."""
        with self._services.hub.subscribe(self._job) as subscription:
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            watch = asyncio.create_task(self._watch(receive, subscription))
            try:
                async with aclosing(self._frames(subscription)) as frames:
                    async for frame in frames:
                        await send({"type": "http.response.body", "body": frame, "more_body": True})
                if not self._gone:
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
            finally:
                watch.cancel()

    async def _watch(self, receive: Receive, subscription: Subscription) -> None:
        message: Message = {"type": ""}
        while message["type"] != "http.disconnect":
            message = await receive()
        self._gone = True
        subscription.news.set()

    async def _frames(self, subscription: Subscription) -> AsyncGenerator[bytes, None]:
        loop = asyncio.get_running_loop()
        services = self._services
        shown: Record | None = None
        told: Standing | None = None
        beat = loop.time()
        yield b"retry: 2000\n\n"
        while not (self._gone or services.hub.draining):
            subscription.news.clear()  # before reading: what comes meanwhile wakes the next round
            stored = await services.stored_job(self._job, with_place=True)
            for event, job in remaining(stored, self._last):
                self._last = (event.partition, event.offset)
                yield _frame(f"job.{event.transition}", job, f"{event.partition}-{event.offset}")
            folded = fold(stored.events)
            if folded.terminal:
                return
            progress = services.hub.progress(self._job)
            if progress is not None and progress is not shown and folded.state is JobState.RUNNING:
                shown = progress
                yield _frame("job.progress", job_json(stored.row, folded, services.standing(stored)))
            waiting = folded.state in _WAITING
            if waiting:
                standing = services.standing(stored, with_place=True)
                if worth_telling(standing, told):
                    told = standing
                    yield _frame("job.waiting", job_json(stored.row, folded, standing))
            look = loop.time() + STANDING_SECONDS
            while not subscription.news.is_set() and not (waiting and loop.time() >= look):
                if not services.tenants.still_valid(self._principal, services.clock.now_ms()):
                    return
                if loop.time() - beat >= HEARTBEAT_SECONDS:
                    beat = loop.time()
                    yield b": heartbeat\n\n"
                try:
                    async with asyncio.timeout(STANDING_SECONDS if waiting else _CHECK_SECONDS):
                        await subscription.news.wait()
                except TimeoutError:
                    pass


def _frame(event: str, job: JobJson, event_id: str | None = None) -> bytes:
    name = b"event: " + event.encode() + b"\n"
    place = b"" if event_id is None else b"id: " + event_id.encode() + b"\n"
    return name + place + b"data: " + msgspec.json.encode(job) + b"\n\n"
