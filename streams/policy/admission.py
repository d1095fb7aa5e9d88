"""Admission's decisions: is the request well-formed, allowed, new, and within its user's limits?

Pure: `now_ms` is the broker's append time of the record, so a replay after a crash decides the same. The rows that a
decision reads and returns are plain dicts, as the tables keep them.
"""

import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from schemas.pipelines import PIPELINES, WORKFLOWS
from streams.policy.bucket import Bucket, Limit, take

Row = dict[str, Any]
Outcome = Literal["accepted", "duplicate", "rejected", "conflict"]

MAX_PROMPT_CHARACTERS: Final = 2_000
MAX_PARAMETERS: Final = 32
MAX_PARAMETER_CHARACTERS: Final = 1_000
KEY_LIFE_MS: Final = 24 * 3_600_000
OFFERED_FORMATS: Final = frozenset({"glb"})
# Refusals that a user's row remembers, so that a replay after a crash refuses the same requests again.
REMEMBERED_REFUSALS: Final = 256

_FINGERPRINTED: Final = (
    "job_type", "workflow", "pipeline_id", "model_version", "prompt", "seed", "quality", "formats", "parameters",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What a user may do: from control.tenants, never from the request."""

    tier: str = "free"
    weight: float = 1.0
    limit: Limit = field(default_factory=lambda: Limit(requests_per_minute=10.0, burst_requests=10))
    scopes: frozenset[str] = frozenset({"jobs"})


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What admission decides about one request.

    user_row, job_row: the rows to write, None to leave them; code, detail: as in AdmissionAnswer.
    """

    outcome: Outcome
    code: str
    detail: str
    user_row: Row | None = None
    job_row: Row | None = None
    retry_after_ms: int | None = None
    remaining: int = 0
    reset_ms: int = 0


def standing_of(tenant: Mapping[str, Any] | None) -> Standing:
    """A Tenant record as a standing; None (unknown over trusted Kafka) is the free tier."""
    if tenant is None:
        return Standing()
    return Standing(
        tier=tenant["tier"],
        weight=tenant["weight"],
        limit=Limit(requests_per_minute=tenant["requests_per_minute"], burst_requests=tenant["burst_requests"]),
        scopes=frozenset(tenant["scopes"]),
    )


def fingerprint(request: Mapping[str, Any]) -> str:
    """SHA-256 over what the user asked for: two requests with one key must have the same."""
    body = {name: request[name] for name in _FINGERPRINTED}
    return hashlib.sha256(
        json.dumps(body, sort_keys=True, ensure_ascii=False).encode("utf-8", "surrogatepass")
    ).hexdigest()


def fault(request: Mapping[str, Any], key: str | None, workflow: str) -> str | None:
    """What is wrong with a request: the field and the remedy; None if nothing."""
    if key != request["user_id"]:
        return "user_id: differs from the record's key; write the user_id as the key"
    try:
        uuid.UUID(request["job_id"])
    except ValueError:
        return "job_id: is no UUID; give a random one"
    if request["workflow"] != workflow or workflow not in WORKFLOWS:
        return f"workflow: {request['workflow']!r} does not belong on requests.{workflow}"
    pipeline = PIPELINES.get(request["pipeline_id"])
    if pipeline is None or pipeline.workflow != workflow:
        offered = ", ".join(p.pipeline_id for p in PIPELINES.values() if p.workflow == workflow)
        return f"pipeline_id: {request['pipeline_id']!r} does not serve {workflow}; offered: {offered}"
    version = request["model_version"]
    if version is not None and version not in pipeline.model_versions:
        return f"model_version: {version!r} is not known; offered: {', '.join(pipeline.model_versions)}"
    prompt = request["prompt"]
    if pipeline.needs_prompt and not (prompt and prompt.strip()):
        return "prompt: is empty; say what to make"
    if prompt is not None and len(prompt) > MAX_PROMPT_CHARACTERS:
        return f"prompt: has {len(prompt)} characters; {MAX_PROMPT_CHARACTERS} at most"
    unknown = sorted(set(request["formats"]) - OFFERED_FORMATS)
    if unknown or not request["formats"]:
        return f"formats: {', '.join(unknown) or 'none given'}; offered: {', '.join(sorted(OFFERED_FORMATS))}"
    parameters = request["parameters"]
    if len(parameters) > MAX_PARAMETERS:
        return f"parameters: {len(parameters)} of them; {MAX_PARAMETERS} at most"
    for name, value in parameters.items():
        if len(name) > MAX_PARAMETER_CHARACTERS or len(value) > MAX_PARAMETER_CHARACTERS:
            return f"parameters: {name[:40]!r} is longer than {MAX_PARAMETER_CHARACTERS} characters"
    return None


def decide(
    request: Mapping[str, Any],
    *,
    problem: str | None,
    source: tuple[str, int, int],
    now_ms: int,
    standing: Standing,
    user_row: Row | None,
    job_row: Row | None,
) -> Verdict:
    """The verdict on one request.

    problem: what `fault` found; source: topic, partition and offset of the record, by which a replay of the same
    record is told from a repeat by the user; user_row {tokens, at_ms, applied: {topic: offset}, refused: [[topic,
    offset]]}; job_row {fingerprint, source, at_ms}.
    """
    if problem is not None:
        return Verdict(outcome="rejected", code="invalid_request", detail=problem)
    scope = PIPELINES[request["pipeline_id"]].scope
    if scope not in standing.scopes:
        detail = f"pipeline_id: {request['pipeline_id']!r} needs the scope {scope!r}, which this user does not have"
        return Verdict(outcome="rejected", code="forbidden", detail=detail)
    left = int(user_row["tokens"]) if user_row else standing.limit.burst_requests
    # A row that a later record wrote says nothing of this one: it was refused then, and its job accepted afterwards.
    later = job_row is not None and job_row["source"][0] == source[0] and job_row["source"][2] > source[2]
    if job_row is not None and not later and now_ms - job_row["at_ms"] <= KEY_LIFE_MS:
        if job_row["source"] == list(source):  # applied before a crash: say the same again
            return Verdict(outcome="accepted", code="ok", detail="", remaining=left)
        if job_row["fingerprint"] != fingerprint(request):
            detail = "the same Idempotency-Key (or job_id) was used with another body; use a new key"
            return Verdict(outcome="conflict", code="idempotency_conflict", detail=detail, remaining=left)
        return Verdict(outcome="duplicate", code="ok", detail="", remaining=left)
    return _within_limit(request, source, now_ms, standing.limit, user_row)


def _within_limit(
    request: Mapping[str, Any], source: tuple[str, int, int], now_ms: int, limit: Limit, user_row: Row | None
) -> Verdict:
    """A new request takes a token; a record that was applied before a crash gets the verdict that it had."""
    topic, _, offset = source
    row = user_row or {"tokens": 0.0, "at_ms": None, "applied": {}, "refused": []}
    applied = offset <= row["applied"].get(topic, -1)
    bucket = Bucket(tokens=row["tokens"], at_ms=row["at_ms"])
    taken = take(bucket, limit, now_ms)
    granted = [topic, offset] not in row["refused"] if applied else taken.granted
    new_row = None
    if not applied:
        refused = row["refused"] if granted else [*row["refused"], [topic, offset]][-REMEMBERED_REFUSALS:]
        new_row = {
            "tokens": taken.bucket.tokens,
            "at_ms": taken.bucket.at_ms,
            "applied": {**row["applied"], topic: offset},
            "refused": refused,
        }
    if granted:
        return Verdict(
            outcome="accepted",
            code="ok",
            detail="",
            user_row=new_row,
            job_row={"fingerprint": fingerprint(request), "source": list(source), "at_ms": now_ms},
            remaining=taken.remaining,
            reset_ms=taken.reset_ms,
        )
    detail = (
        f"requests: over the limit of {limit.requests_per_minute:g} a minute (burst {limit.burst_requests}); "
        f"wait {taken.retry_after_ms} ms"
    )
    return Verdict(
        outcome="rejected",
        code="rate_limit",
        detail=detail,
        user_row=new_row,
        retry_after_ms=taken.retry_after_ms,
        reset_ms=taken.reset_ms,
    )
