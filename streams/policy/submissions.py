"""What admission works with: a user's standing, the verdict on a request, and what makes two requests the same."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import msgspec

from streams.policy.admission_rows import End, Held
from streams.policy.bucket import Limit
from streams.policy.config import DEFAULT, FREE, Policy

Outcome = Literal["accepted", "duplicate", "rejected", "conflict"]

_FINGERPRINTED: Final = (
    "job_type", "workflow", "pipeline_id", "model_version", "prompt", "seed", "quality", "formats", "parameters",
    "texture_size", "lane", "run_at", "debounce_key", "retry_of",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """What a user may do: from control.tenants, never from the request. key_limits: of API keys that have a bucket of
    their own; max_backlog: jobs held, queued or running at once."""

    tier: str = FREE
    weight: float = 1.0
    limit: Limit = field(default_factory=lambda: Limit(requests_per_minute=10.0, burst_requests=10))
    key_limits: Mapping[str, Limit] = field(default_factory=dict)
    scopes: frozenset[str] = frozenset({"jobs"})
    max_backlog: int = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What admission decides about one request.

    code, detail, limit, retry_after_ms, remaining, reset_ms: as in AdmissionAnswer; ready: the StageReady that goes to
    the scheduler now; held: the row of a job that waits here; ended: held jobs that this one ended.
    """

    outcome: Outcome
    code: str = "ok"
    detail: str = ""
    limit: str | None = None
    retry_after_ms: int | None = None
    remaining: int = 0
    reset_ms: int = 0
    domain: str = ""
    ready: dict[str, Any] | None = None
    held: Held | None = None
    ended: tuple[tuple[Held, End], ...] = ()


def standing_of(tenant: Mapping[str, Any] | None, policy: Policy = DEFAULT) -> Standing:
    """A Tenant record as a standing; None (unknown over trusted Kafka) is the free tier."""
    if tenant is None:
        return Standing(max_backlog=policy.tier(FREE).max_backlog)
    backlog = tenant["max_backlog"]
    limits = {}
    for key in tenant["keys"]:
        rate, burst = key.get("requests_per_minute"), key.get("burst_requests")
        if rate is not None and key["revoked_at"] is None:
            limits[key["key_id"]] = Limit(requests_per_minute=rate, burst_requests=max(1, burst or 1))
    return Standing(
        tier=tenant["tier"],
        weight=tenant["weight"],
        limit=Limit(requests_per_minute=tenant["requests_per_minute"], burst_requests=tenant["burst_requests"]),
        key_limits=limits,
        scopes=frozenset(tenant["scopes"]),
        max_backlog=backlog if backlog is not None else policy.tier(tenant["tier"]).max_backlog,
    )


def fingerprint(request: Mapping[str, Any]) -> bytes:
    """16 bytes of SHA-256 over what the user asked for: two requests with one key must have the same."""
    body = msgspec.msgpack.encode([request[name] for name in _FINGERPRINTED], order="deterministic")
    return hashlib.sha256(body).digest()[:16]


def with_deadlines(ready: dict[str, Any], start: float | None, finish: float | None, now_ms: int) -> dict[str, Any]:
    """A StageReady of a job that was held: its deadlines (seconds) run from its release."""
    return {
        **ready,
        "start_by": None if start is None else now_ms + round(start * 1000),
        "finish_by": None if finish is None else now_ms + round(finish * 1000),
    }
