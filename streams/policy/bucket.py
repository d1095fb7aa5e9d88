"""Token bucket, refilled from timestamps (never by counting ticks)."""

import math
from dataclasses import dataclass
from typing import Final

# Refills are sums of floats: a request that comes exactly at its Retry-After must not miss by the last bit.
_ROUNDING: Final = 1e-6


@dataclass(frozen=True, kw_only=True)
class Limit:
    """requests_per_minute: refill rate; burst_requests: size of the bucket."""

    requests_per_minute: float
    burst_requests: int


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """tokens that were there at `at_ms`; at_ms None: the bucket was never used and is full."""

    tokens: float = 0.0
    at_ms: int | None = None


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What asking for a token gave.

    bucket: as it is now; granted: whether there was a token; retry_after_ms: until there is one (0 when granted);
    remaining: whole tokens left; reset_ms: until the bucket is full again.
    """

    bucket: Bucket
    granted: bool
    retry_after_ms: int
    remaining: int
    reset_ms: int


def take(bucket: Bucket, limit: Limit, now_ms: int) -> Taken:
    """Takes one token if there is one. Time that runs backwards refills nothing."""
    per_ms = limit.requests_per_minute / 60_000
    if bucket.at_ms is None:
        tokens, at = float(limit.burst_requests), now_ms
    else:
        at = max(now_ms, bucket.at_ms)
        tokens = min(float(limit.burst_requests), bucket.tokens + (at - bucket.at_ms) * per_ms)
    granted = tokens >= 1.0 - _ROUNDING
    if granted:
        tokens = max(0.0, tokens - 1.0)
    missing = 0.0 if granted else 1.0 - tokens
    return Taken(
        bucket=Bucket(tokens=tokens, at_ms=at),
        granted=granted,
        retry_after_ms=_until(missing, per_ms),
        remaining=int(tokens),
        reset_ms=_until(limit.burst_requests - tokens, per_ms),
    )


def _until(tokens: float, per_ms: float) -> int:
    """Milliseconds until so many tokens have come, rounded up; a year when none ever come."""
    year = 365 * 24 * 3_600_000
    if tokens <= 0:
        return 0
    return min(year, math.ceil(tokens / per_ms)) if per_ms > 0 else year
