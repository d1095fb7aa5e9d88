"""Waits for what admission says to a request, and notices when it says nothing any more."""

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Final

from schemas.codec import Record

# Admission counts as lagging when this many requests in a row had no answer in time, over at least this long.
LAG_REQUESTS: Final = 20
LAG_SECONDS: Final = 5.0
# While it lags, one request in this time is let through to see whether it answers again.
PROBE_SECONDS: Final = 1.0


class AnswerLag:
    """Whether admission answers; pure, time is an argument (monotonic seconds)."""

    def __init__(self) -> None:
        self._misses: deque[float] = deque(maxlen=LAG_REQUESTS)
        self._first_miss: float | None = None
        self._last_probe = 0.0

    def answered(self) -> None:
        """A request had its answer in time."""
        self._misses.clear()
        self._first_miss = None

    def missed(self, now: float) -> None:
        """A request had no answer in time."""
        self._misses.append(now)
        if self._first_miss is None:
            self._first_miss = now

    def lagging(self, now: float) -> bool:
        """Whether requests should be refused for now."""
        return (
            len(self._misses) == LAG_REQUESTS and self._first_miss is not None and now - self._first_miss >= LAG_SECONDS
        )

    def admit(self, now: float) -> bool:
        """Whether this request may go to admission: always, or as the probe of its second while it lags."""
        if not self.lagging(now):
            return True
        if now - self._last_probe < PROBE_SECONDS:
            return False
        self._last_probe = now
        return True


class Answers:
    """Requests that wait, by request id; belongs to the event loop."""

    def __init__(self, timeout_seconds: float) -> None:
        self.lag = AnswerLag()
        self._timeout_seconds = timeout_seconds
        self._waiting: dict[str, asyncio.Future[Record]] = {}

    def expect(self, request_id: str) -> "asyncio.Future[Record]":
        """Call before the request is sent, so that no answer is missed; wait() or forget() must follow."""
        future: asyncio.Future[Record] = asyncio.get_running_loop().create_future()
        self._waiting[request_id] = future
        return future

    def forget(self, request_id: str) -> None:
        """Nobody waits for this request any more."""
        self._waiting.pop(request_id, None)

    async def wait(self, future: "asyncio.Future[Record]") -> Record | None:
        """The answer, None when it does not come in time."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._timeout_seconds):
                answer = await future
        except TimeoutError:
            self.lag.missed(loop.time())
            return None
        self.lag.answered()
        return answer

    def settle(self, answers: Iterable[Record]) -> None:
        """Hands answers to those who wait; the other gateways' pass by."""
        for answer in answers:
            future = self._waiting.get(answer["request_id"])
            if future is not None and not future.done():
                future.set_result(answer)
