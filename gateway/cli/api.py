"""The gateway's HTTP interface as commands use it."""

import json
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import httpx

from gateway.cli.errors import ApiError, CommandError
from gateway.cli.target import Target

FINAL_STATES: Final = frozenset({"succeeded", "failed", "canceled", "aborted", "rejected"})
RETRY_SECONDS: Final = 0.5
UNAVAILABLE_SECONDS: Final = 30.0
"""How long to repeat a request that is answered with 503."""
EVENT_SILENCE_SECONDS: Final = 40.0
"""The gateway sends a comment each 15 s; a stream that is silent for longer is dead."""

Job = dict[str, Any]


class Api:
    """One client of one gateway; use it as a context manager. Methods raise ApiError and CommandError."""

    def __init__(self, target: Target) -> None:
        self._url = target.url
        self._patience_seconds = target.patience_seconds
        self._client = httpx.Client(
            base_url=target.url, headers={"Authorization": f"Bearer {target.key}"}, timeout=httpx.Timeout(30.0)
        )

    def __enter__(self) -> "Api":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def submit(self, request: Mapping[str, object], idempotency_key: str | None = None) -> Job:
        """POST /v1/jobs; returns the job as the gateway tells it. Without a key it makes one of its own, so that
        asking again after a lost answer makes no second job."""
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        return self._call("POST", "/v1/jobs", json=dict(request), headers=headers)

    def job(self, job_id: str) -> Job:
        """GET /v1/jobs/{id}."""
        return self._call("GET", f"/v1/jobs/{job_id}")

    def jobs(self, limit: int, state: str | None = None) -> list[Job]:
        """GET /v1/jobs: one's own, newest first."""
        answer = self._call("GET", "/v1/jobs", params={"limit": limit, **({"state": state} if state else {})})
        return list(answer["jobs"])

    def cancel(self, job_id: str) -> Job:
        """POST /v1/jobs/{id}/cancel."""
        return self._call("POST", f"/v1/jobs/{job_id}/cancel")

    def change(self, job_id: str, **change: object) -> Job:
        """PATCH /v1/jobs/{id}: priority, paused."""
        return self._call("PATCH", f"/v1/jobs/{job_id}", json=change)

    def change_all(self, action: str) -> Job:
        """POST /v1/jobs/pause or /v1/jobs/resume: all of one's jobs that wait."""
        return self._call("POST", f"/v1/jobs/{action}")

    def download(self, job_id: str, name: str, target: Path) -> int:
        """GET an asset into a file, in one step; returns its size in bytes."""
        partial = target.with_name(f".{target.name}.part")
        try:
            with self._client.stream("GET", f"/v1/jobs/{job_id}/assets/{name}") as response:
                if response.status_code != 200:
                    response.read()
                    raise _problem(response)
                with partial.open("wb") as file:
                    for block in response.iter_bytes(1 << 20):
                        file.write(block)
            partial.replace(target)
        except httpx.HTTPError as error:
            raise CommandError(f"{name} could not be fetched from {self._url}: {error}") from error
        finally:
            partial.unlink(missing_ok=True)
        return target.stat().st_size

    def events(self, job_id: str, give_up_seconds: float = 60.0) -> Iterator[tuple[str, Job]]:
        """Events of a job as (event, data) until its final one; goes on after the gateway was away.

        Raises CommandError when the gateway stays away for longer than `give_up_seconds`.
        """
        last_id: str | None = None
        away_since: float | None = None
        while True:
            try:
                for event, event_id, data in self._stream(job_id, last_id):
                    away_since = None
                    last_id = event_id or last_id
                    yield event, data
                    if event != "job.progress" and data.get("state") in FINAL_STATES:
                        return
            except (httpx.HTTPError, ApiError) as error:
                if isinstance(error, ApiError) and error.status != 503:
                    raise
                away_since = away_since or time.monotonic()
                if time.monotonic() - away_since > give_up_seconds:
                    raise CommandError(f"the gateway at {self._url} does not answer: {error}") from error
            time.sleep(RETRY_SECONDS)

    def wait(self, job_id: str) -> None:
        """Return when the job has ended."""
        for _ in self.events(job_id):
            pass

    def _stream(self, job_id: str, last_id: str | None) -> Iterator[tuple[str, str | None, Job]]:
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last_id} if last_id else {})}
        timeout = httpx.Timeout(10.0, read=EVENT_SILENCE_SECONDS)
        with self._client.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers, timeout=timeout) as response:
            if response.status_code != 200:
                response.read()
                raise _problem(response)
            yield from parse_events(response.iter_lines())

    def _ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        """An answer; asks again while the gateway starts (503) or, on a stack that is known to run, is away.

        Every request of ours may be repeated: reads, cancels, and submissions by their key.
        """
        began = time.monotonic()
        while True:
            waited = time.monotonic() - began
            try:
                response = self._client.request(method, path, **options)
            except httpx.HTTPError as error:
                if waited >= self._patience_seconds:
                    raise CommandError(f"the gateway at {self._url} does not answer: {error}") from error
                time.sleep(RETRY_SECONDS)
                continue
            if response.status_code != 503 or waited >= UNAVAILABLE_SECONDS:
                return response
            time.sleep(_retry_after_seconds(response))

    def _call(self, method: str, path: str, **options: Any) -> Job:
        response = self._ask(method, path, **options)
        if response.status_code >= 400:
            raise _problem(response)
        answer = response.json()
        if not isinstance(answer, dict):
            raise CommandError(f"the gateway at {self._url} answered with something else than an object")
        return answer


def _retry_after_seconds(response: httpx.Response) -> float:
    text = response.headers.get("Retry-After", "")
    return min(5.0, float(text)) if text.isascii() and text.isdigit() else RETRY_SECONDS


def parse_events(lines: Iterator[str]) -> Iterator[tuple[str, str | None, Job]]:
    """Server-sent events as (event, id, data), from the lines of a stream (HTML standard, section 9.2.6).

    Events without data are comments or keep-alives and are left out.
    """
    event, event_id = "message", None
    data: list[str] = []
    for line in lines:
        if line == "":
            if data:
                yield event, event_id, json.loads("\n".join(data))
            event, event_id, data = "message", None, []
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            event = value
        elif name == "id":
            event_id = value
        elif name == "data":
            data.append(value)


def _problem(response: httpx.Response) -> ApiError:
    """The error of an answer, from its problem+json (RFC 9457) where it has one."""
    try:
        problem = response.json()
    except ValueError:
        problem = {}
    if not isinstance(problem, dict):
        problem = {}
    return ApiError(
        response.status_code,
        str(problem.get("code", response.reason_phrase)),
        str(problem.get("detail") or problem.get("title") or "no detail given"),
        str(problem.get("suggestion") or ""),
    )
