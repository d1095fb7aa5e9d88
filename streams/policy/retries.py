"""When a failed attempt is tried again.

`transient`, `crash`, `timeout` and `lost` at once after the first failure, then with growing delays; `overload`,
`rate_limited` and `oom` with full jitter from the first on, so that a herd does not come back together (Brooker,
"Exponential Backoff And Jitter", AWS Architecture Blog 2015). Randomness would make replays differ: the jitter is a
hash of what is tried.
"""

import hashlib
from typing import Final

from streams.policy.config import Retry

JITTERED: Final = frozenset({"overload", "rate_limited", "oom"})


def delay_ms(retry: Retry, error_class: str, attempt: int, salt: str, retry_after_seconds: float | None = None) -> int:
    """Milliseconds to wait after failure number `attempt` (from 1) of a class that may be retried.

    salt: names the attempt, for the jitter; retry_after_seconds: what the one who refused asked for, a lower bound,
    itself bounded by the cap.
    """
    if error_class in JITTERED:
        ceiling = min(retry.cap_seconds, retry.base_seconds * 2.0 ** min(attempt - 1, 30))
        seconds = ceiling * _uniform(salt)
    elif attempt <= 1:
        seconds = 0.0
    else:
        seconds = min(retry.cap_seconds, retry.base_seconds * 2.0 ** min(attempt - 2, 30))
    if retry_after_seconds is not None and retry_after_seconds > 0:
        seconds = max(seconds, min(retry_after_seconds, retry.cap_seconds))
    return int(1000 * seconds)


def _uniform(salt: str) -> float:
    """A number in [0, 1), the same for the same salt on any machine."""
    return int.from_bytes(hashlib.sha256(salt.encode()).digest()[:8], "big") / 2**64
