"""The submitter: a process of its own that sends requests as fast as one client can, or at a given rate.

A bare HTTP/1.1 client on kept connections: a comfortable library would cost more CPU than the rest of a job.
"""

import asyncio
import json
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Final, cast
from urllib.parse import urlsplit

import httptools
import uvloop

CONNECTIONS: Final = 32
ANSWER_SECONDS: Final = 30.0
RETRY_SECONDS: Final = 0.1
GIVE_UP_SECONDS: Final = 30.0
PROMPT: Final = "a low-poly wooden treasure chest " * 4
# As in the jobs of the peers: the first two stages leave nothing behind, the last one stores a result.
NOOP_PARAMETERS: Final = {"results": "last"}


@dataclass(frozen=True, kw_only=True)
class Load:
    """A phase. name: makes its idempotency keys; rate_per_second: None sends as fast as it can."""

    name: str
    jobs: int
    rate_per_second: float | None


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """began: monotonic ns; intended: when each accepted job should have been sent; seconds: until the last answer;
    repeats: requests that the gateway asked to send again; problem: why it gave up, None when it did not."""

    began: int
    intended: dict[str, int]
    seconds: float
    repeats: int
    problem: str | None


class Refused(RuntimeError):
    """The gateway will not take the jobs."""


def submit(url: str, keys: tuple[str, ...], pipe: Connection) -> None:
    """The process: says what it Submitted for each Load, until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one who started it ends it
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        submitter = Submitter(url, keys)
        try:
            while True:
                pipe.send(runner.run(submitter.run(pipe.recv())))
        except (EOFError, BrokenPipeError):
            pass
        finally:
            runner.run(submitter.close())


class Submitter:
    """Sends phases over the same connections."""

    def __init__(self, url: str, keys: tuple[str, ...]) -> None:
        address = urlsplit(url)
        self._host, self._port = address.hostname or "", address.port or 80
        self._keys = keys
        self._connections: list[_Connection] = []
        self._repeats = 0

    async def run(self, load: Load) -> Submitted:
        """One phase. Jobs that the gateway cannot take yet (503, or a key not known yet) are sent again."""
        while len(self._connections) < CONNECTIONS:
            self._connections.append(_Connection(self._host, self._port))
        for connection in self._connections:
            await connection.open()
        self._repeats = 0
        began = time.monotonic_ns() + 1_000_000
        intended: dict[str, int] = {}
        numbers = iter(range(load.jobs))
        lanes = [self._lane(one, load, numbers, began, intended) for one in self._connections]
        problem = None
        try:
            async with asyncio.TaskGroup() as group:
                for lane in lanes:
                    group.create_task(lane)
        except* (Refused, OSError, TimeoutError) as failures:
            problem = repr(failures.exceptions[0])
            await self.close()
        seconds = (time.monotonic_ns() - began) / 1e9
        return Submitted(began=began, intended=intended, seconds=seconds, repeats=self._repeats, problem=problem)

    async def close(self) -> None:
        """Closes the connections."""
        while self._connections:
            self._connections.pop().close()

    async def _lane(
        self, connection: "_Connection", load: Load, numbers: Iterator[int], began: int, intended: dict[str, int]
    ) -> None:
        for number in numbers:
            at = time.monotonic_ns()
            if load.rate_per_second is not None:
                at = began + int(number * 1e9 / load.rate_per_second)
                await asyncio.sleep(max(0.0, (at - time.monotonic_ns()) / 1e9))
            intended[await self._job(connection, load.name, number)] = at

    async def _job(self, connection: "_Connection", name: str, number: int) -> str:
        request = self._request(name, number)
        give_up = time.monotonic() + GIVE_UP_SECONDS
        while True:
            try:
                status, body = await connection.ask(request)
            except ConnectionError:  # its idle connections are closed after some seconds; the key makes no second job
                status, body = 0, b"it closed the connection"
            if status == 202:
                return str(json.loads(body)["id"])
            if status not in (0, 401, 403, 503) or time.monotonic() > give_up:
                raise Refused(f"the gateway answered {status}: {body[:300].decode(errors='replace')}")
            self._repeats += 1
            await asyncio.sleep(RETRY_SECONDS)

    def _request(self, name: str, number: int) -> bytes:
        wish = {"workflow": "text-to-3d", "pipeline_id": "synthetic", "prompt": PROMPT, "seed": number}
        body = json.dumps({**wish, "parameters": NOOP_PARAMETERS}).encode()
        head = (
            f"POST /v1/jobs HTTP/1.1\r\nHost: {self._host}:{self._port}\r\n"
            f"Authorization: Bearer {self._keys[number % len(self._keys)]}\r\nIdempotency-Key: {name}-{number}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


class _Connection(asyncio.Protocol):
    """One kept connection; one request at a time. It is opened when it is needed."""

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self._parser: Any = None
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._body = b""

    async def open(self) -> None:
        """Makes sure that it is open. Raises OSError."""
        if self._transport is None:
            self._parser = httptools.HttpResponseParser(self)
            await asyncio.get_running_loop().create_connection(lambda: self, *self._address)

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Status and body of the answer. Raises OSError when the connection ends, TimeoutError."""
        await self.open()
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._body = b""
        self._transport.write(request)
        async with asyncio.timeout(ANSWER_SECONDS):
            return await self._answer

    def close(self) -> None:
        """Closes it."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own class

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._transport = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("the gateway closed the connection"))

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        """The parser read a piece of the body."""
        self._body += body

    def on_message_complete(self) -> None:
        """The parser has the whole answer."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((self._parser.get_status_code(), self._body))
