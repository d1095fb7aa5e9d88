"""Token bucket, refilled from timestamps (never by counting ticks).

A bucket may be in debt: who waits for a token reserves it, so that waiters are served in order and nobody overtakes
them.
"""

import math
from dataclasses import dataclass
from typing import Final

# Refills are sums of floats: a request that comes exactly at its Retry-After must not miss by the last bit.
_ROUNDING: Final = 1e-6
YEAR_MS: Final = 365 * 24 * 3_600_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Limit:
    """requests_per_minute: refill rate; burst_requests: size of the bucket."""

    requests_per_minute: float
    burst_requests: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Bucket:
    """tokens that were there at `at_ms`, negative when some are reserved; at_ms None: never used, and full."""

    tokens: float = 0.0
    at_ms: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Reserved:
    """What asking for a token gives.

    bucket: as it is once the token is taken; due_ms: when the token is there (now, or later); remaining: whole tokens
    left; reset_ms: milliseconds until the bucket is full again. A caller that does not want to wait until due_ms
    keeps its old bucket, and due_ms is when to ask again.
    """

    bucket: Bucket
    due_ms: int
    remaining: int
    reset_ms: int


def reserve(bucket: Bucket, limit: Limit, now_ms: int) -> Reserved:
    """Takes the next token, which may come later. Time that runs backwards refills nothing."""
    per_ms = limit.requests_per_minute / 60_000
    burst = float(limit.burst_requests)
    if bucket.at_ms is None:
        tokens, at = burst, now_ms
    else:
        at = max(now_ms, bucket.at_ms)
        tokens = min(burst, bucket.tokens + (at - bucket.at_ms) * per_ms)
    if tokens >= 1.0 - _ROUNDING:
        left, wait = max(0.0, tokens - 1.0), 0
    else:
        left, wait = tokens - 1.0, _until(1.0 - tokens, per_ms)
    return Reserved(
        bucket=Bucket(tokens=left, at_ms=at),
        due_ms=now_ms if wait == 0 else at + wait,
        remaining=max(0, int(left)),
        reset_ms=_until(burst - left, per_ms),
    )


def is_full(bucket: Bucket, limit: Limit, now_ms: int) -> bool:
    """Whether forgetting the bucket would change nothing."""
    if bucket.at_ms is None:
        return True
    return bucket.tokens + (now_ms - bucket.at_ms) * limit.requests_per_minute / 60_000 >= limit.burst_requests


def _until(tokens: float, per_ms: float) -> int:
    """Milliseconds until so many tokens have come, rounded up; a year when none ever come."""
    if tokens <= 0:
        return 0
    return min(YEAR_MS, math.ceil(tokens / per_ms)) if per_ms > 0 else YEAR_MS
