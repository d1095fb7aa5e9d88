"""/v1/jobs: make, read, list, change, cancel."""

import math
import uuid
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway import ids
from gateway.auth import Principal
from gateway.bodies import read_body
from gateway.fold import fold
from gateway.jobs import JobJson, cursor_of, job_json, parse_cursor, request_row
from gateway.middleware.authentication import PRINCIPAL
from gateway.middleware.context import REQUEST_ID
from gateway.problems import Problem, not_found, unavailable
from gateway.requests import request_record
from gateway.services import Services, accepted_fold, services_of
from gateway.tables import JobKey, StoredJob, lane_of
from gateway.validation import (
    MAX_BODY_BYTES,
    idempotency_key,
    parse_cancel,
    parse_change,
    parse_job,
)
from schemas.codec import Record
from schemas.jobs import JobState
from schemas.topics import COMMANDS, requests_topic
from streams.kafka.producer import tracing_headers

_DEFAULT_LIMIT: Final = 20
_MAX_LIMIT: Final = 100
# When to ask again where admission cannot say: a job of the user has to end first.
_UNKNOWN_RETRY_SECONDS: Final = 5.0


def json_response(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer."""
    return Response(msgspec.json.encode(value), status, headers, "application/json")


def job_key(request: Request) -> JobKey:
    """The job that the path names, under the user whose key came with the request. Raises Problem not_found."""
    job_id = request.path_params["job_id"].lower()
    if not ids.is_job_id(job_id):
        raise not_found()
    return principal_of(request).user_id, job_id


def principal_of(request: Request) -> Principal:
    """Who asks; the authentication layer has made sure of it."""
    found = request.scope[PRINCIPAL]
    assert isinstance(found, Principal)
    return found


async def create_job(request: Request) -> Response:
    """POST /v1/jobs."""
    services = services_of(request.app.state)
    principal = principal_of(request)
    services.ensure_accepting()
    key = idempotency_key(request.headers.getlist("idempotency-key"))
    body, pipeline = parse_job(await read_body(request, MAX_BODY_BYTES))
    if pipeline.scope not in principal.scopes:
        raise _forbidden(f"the pipeline {pipeline.pipeline_id} needs the scope {pipeline.scope}")
    services.ensure_scheduled(pipeline.pipeline_id)
    job_id = ids.job_id(services.settings.server_key, principal.user_id, key)
    record = request_record(body, pipeline, principal, job_id, services.clock.now_ms()) | {
        "request_id": request.scope[REQUEST_ID],
        "traceparent": ids.traceparent(request.headers.get("traceparent")),
    }
    refusal = _load_refusal(services, principal, record)
    # Who repeats a request whose job is there learns so, whatever the load.
    if refusal is not None and not (key is not None and await _is_known(services, record)):
        raise refusal
    value = services.codec.encode("job_requested", record)
    request_id = record["request_id"]
    waiting = services.answers.expect(request_id)
    try:
        headers = [
            (ids.SIGNATURE_HEADER, ids.signature(services.settings.server_key, value)),
            *tracing_headers(record),
        ]
        await services.send(requests_topic(body.workflow), principal.user_id, value, headers)
        services.hub.remember(record)
        answer = await services.answers.wait(waiting)
    finally:
        services.answers.forget(request_id)
    if answer is None or answer["user_id"] != principal.user_id:
        return await _accepted(services, record, {})
    return await _answered(services, record, answer, principal)


def _load_refusal(services: Services, principal: Principal, record: Record) -> Problem | None:
    """What control.load says against a request: the load level, or its own max_queue_depth."""
    load = services.loads.of(record["pipeline_id"])
    seconds = load.refused_for_seconds(principal.tier, lane_of(record))
    if seconds is not None:
        return _overloaded("submissions of this tier or lane are refused at the present load level", seconds)
    if record["max_queue_depth"] is not None:
        seconds = load.over_depth_seconds(record["max_queue_depth"])
        if seconds is not None:
            return _over_limit("queue_depth", "more tasks wait than max_queue_depth allows", seconds, {})
    return None


async def _is_known(services: Services, record: Record) -> bool:
    """Whether the request is the repeat of one that was accepted."""
    stored = await services.read(services.read_model.job, record["user_id"], record["job_id"])
    return stored is not None and fold(stored.events).state not in (JobState.SUBMITTED, JobState.REJECTED)


_LIMITS: Final = {"backlog": "backlog_limit", "queue_depth": "queue_depth"}


def _over_limit(limit: str, detail: str, retry_after_seconds: float, headers: dict[str, str]) -> Problem:
    """429 with the name of the limit."""
    seconds = max(1, math.ceil(retry_after_seconds))
    return Problem(
        _LIMITS.get(limit, "rate_limit"),
        detail,
        f"wait {seconds} s and send it again",
        limit=limit,
        headers={**headers, "retry-after": str(seconds)},
    )


def _overloaded(detail: str, retry_after_seconds: float) -> Problem:
    return unavailable("overloaded", detail, retry_after_seconds=max(1, math.ceil(retry_after_seconds)), limit="load")


async def _answered(services: Services, record: Record, answer: Record, principal: Principal) -> Response:
    headers = _rate_limit_headers(answer, principal)
    outcome, code, limit = answer["outcome"], answer["code"], answer["limit"]
    job = (record["user_id"], record["job_id"])
    if outcome == "accepted":
        services.hub.accepted(job, answer["held_until"])
        # The job as admission took it: what has become of it since is another question.
        return _created(job_json(request_row(record), accepted_fold(answer["held_until"])), headers)
    if outcome == "duplicate":
        # The first request's job; this gateway may have read it already, and forgotten that it was new.
        stored = await services.read(services.read_model.job, *job)
        if stored is not None and stored.events:
            services.hub.forget(job)
        return await _accepted(services, record, {**headers, "idempotent-replayed": "true"})
    services.hub.forget(job)
    if outcome == "conflict":
        raise Problem(
            "idempotency_conflict",
            answer["detail"],
            "send the same body again, or use another Idempotency-Key",
            field="Idempotency-Key",
            headers=headers,
        )
    if limit is not None or code == "rate_limit":
        retry_after_ms = answer["retry_after_ms"]
        seconds = _UNKNOWN_RETRY_SECONDS if retry_after_ms is None else retry_after_ms / 1000
        if limit == "load":
            raise _overloaded(answer["detail"], seconds)
        raise _over_limit(limit or "requests", answer["detail"], seconds, headers)
    if code == "forbidden":
        raise _forbidden(answer["detail"])
    raise Problem("invalid_request", answer["detail"], "change the request as the detail says", headers=headers)


def _forbidden(detail: str) -> Problem:
    return Problem("forbidden", detail, "ask the operator of this installation for a key with that scope")


def _rate_limit_headers(answer: Record, principal: Principal) -> dict[str, str]:
    """RateLimit fields after draft-ietf-httpapi-ratelimit-headers: burst and the time that fills it."""
    burst = answer["limit_requests"]
    if burst < 1 or principal.requests_per_minute <= 0:
        return {}
    window = max(1, math.ceil(burst * 60 / principal.requests_per_minute))
    until_ms = answer["retry_after_ms"] if answer["retry_after_ms"] is not None else answer["reset_ms"]
    return {
        "ratelimit-policy": f'"default";q={burst};w={window}',
        "ratelimit": f'"default";r={max(0, answer["remaining_requests"])};t={max(0, math.ceil(until_ms / 1000))}',
    }


async def _accepted(services: Services, record: Record, headers: dict[str, str]) -> Response:
    return _created(await services.job((record["user_id"], record["job_id"])), headers)


def _created(job: JobJson, headers: dict[str, str]) -> Response:
    return json_response(job, 202, {**headers, "location": job["urls"]["self"]})


async def get_job(request: Request) -> Response:
    """GET /v1/jobs/{job_id}; unfinished jobs say when to ask again."""
    job = await services_of(request.app.state).job(job_key(request))
    headers = {"cache-control": "no-store"}
    if job["finished_at"] is None:
        headers["retry-after"] = "1"
    return json_response(job, 200, headers)


async def list_jobs(request: Request) -> Response:
    """GET /v1/jobs: the user's own, newest first."""
    services = services_of(request.app.state)
    query = request.query_params
    for name in query:
        if name not in ("limit", "cursor", "state"):
            raise bad_parameter(name[:64].encode("unicode_escape").decode(), "known parameters: limit, cursor, state")
    limit = query.get("limit", str(_DEFAULT_LIMIT))
    if not limit.isascii() or not limit.isdigit() or not 1 <= int(limit[:6]) <= _MAX_LIMIT:
        raise bad_parameter("limit", f"give a number from 1 to {_MAX_LIMIT}")
    state = query.get("state")
    if state is not None and state not in set(JobState):
        raise bad_parameter("state", f"give one of: {', '.join(JobState)}")
    cursor = query.get("cursor")
    found = await services.read(
        services.read_model.jobs,
        principal_of(request).user_id,
        limit=int(limit) + 1,
        before=parse_cursor(cursor) if cursor else None,
        state=state,
    )
    page = found[: int(limit)]
    body: dict[str, Any] = {"jobs": [_listed(services, stored) for stored in page], "next_cursor": None}
    if len(found) > len(page):
        body["next_cursor"] = cursor_of(page[-1].row)
    return json_response(body, 200, {"cache-control": "no-store"})


def _listed(services: Services, stored: StoredJob) -> dict[str, Any]:
    """A job in a list: without its place in the queue, which each job has to be asked for."""
    return job_json(stored.row, fold(stored.events), services.standing(stored))


def bad_parameter(name: str, suggestion: str) -> Problem:
    """400 for a query parameter."""
    return Problem("invalid_parameter", "the query parameter is not valid", suggestion, field=name)


async def cancel_job(request: Request) -> Response:
    """POST /v1/jobs/{job_id}/cancel: asks for it; the job's owner of the moment decides the race."""
    services = services_of(request.app.state)
    job = job_key(request)
    body = parse_cancel(await read_body(request, MAX_BODY_BYTES))
    folded = services.fold(await services.stored_job(job))
    if folded.terminal:
        return json_response({"status": f"already_{folded.state.value}"})
    await _command(services, job[0], "cancel", job[1], reason=body.reason)
    return json_response({"status": "cancellation_requested"}, 202)


async def change_job(request: Request) -> Response:
    """PATCH /v1/jobs/{job_id}: priority, paused."""
    services = services_of(request.app.state)
    job = job_key(request)
    stored = await services.stored_job(job)
    body = parse_change(await read_body(request, MAX_BODY_BYTES))
    folded = services.fold(stored)
    if folded.terminal:
        raise Problem("job_ended", f"the job has ended as {folded.state.value}", "submit a new job")
    if body.priority is not None:
        await _command(services, job[0], "reprioritise", job[1], priority=body.priority)
    if body.paused is not None:
        await _command(services, job[0], "pause" if body.paused else "resume", job[1])
    return json_response({"status": "change_requested"}, 202)


async def pause_jobs(request: Request) -> Response:
    """POST /v1/jobs/pause: all jobs of the user that wait."""
    return await _all_jobs(request, "pause")


async def resume_jobs(request: Request) -> Response:
    """POST /v1/jobs/resume: all jobs of the user that were paused."""
    return await _all_jobs(request, "resume")


async def _all_jobs(request: Request, kind: str) -> Response:
    await _command(services_of(request.app.state), principal_of(request).user_id, kind, "")
    return json_response({"status": "change_requested"}, 202)


async def _command(
    services: Services, user_id: str, kind: str, job_id: str, *, reason: str = "", priority: int | None = None
) -> None:
    """Stores a command under its user's key, signed by this installation. Raises Problem broker_unavailable."""
    record = {
        "command_id": str(uuid.uuid4()),
        "kind": kind,
        "job_id": job_id,
        "user_id": user_id,
        "reason": reason,
        "issued_at": services.clock.now_ms(),
        "priority": priority,
    }
    value = services.codec.encode("command", record)
    signature = ids.signature(services.settings.server_key, value)
    await services.send(COMMANDS, user_id, value, [(ids.SIGNATURE_HEADER, signature)])


ROUTES: Final = [
    Route("/v1/jobs", create_job, methods=["POST"]),
    Route("/v1/jobs", list_jobs, methods=["GET"]),
    Route("/v1/jobs/pause", pause_jobs, methods=["POST"]),
    Route("/v1/jobs/resume", resume_jobs, methods=["POST"]),
    Route("/v1/jobs/{job_id}", get_job, methods=["GET"]),
    Route("/v1/jobs/{job_id}", change_job, methods=["PATCH"]),
    Route("/v1/jobs/{job_id}/cancel", cancel_job, methods=["POST"]),
]
