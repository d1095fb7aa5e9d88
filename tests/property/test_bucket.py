"""A token bucket never gives more than its burst plus its rate, and its Retry-After is exact."""

from hypothesis import given
from hypothesis import strategies as st

from streams.policy.bucket import Bucket, Limit, take

limits = st.builds(Limit, requests_per_minute=st.floats(0.1, 6000), burst_requests=st.integers(1, 50))


@given(limit=limits, gaps=st.lists(st.integers(0, 20_000), min_size=1, max_size=80))
def test_grants_stay_within_burst_and_rate(limit: Limit, gaps: list[int]) -> None:
    bucket, now, granted = Bucket(), 0, 0
    for gap in gaps:
        now += gap
        taken = take(bucket, limit, now)
        bucket = taken.bucket
        granted += taken.granted
        assert bucket.tokens >= 0
        # Each grant may round up by a millionth of a token.
        allowed = limit.burst_requests + now * limit.requests_per_minute / 60_000
        assert granted <= allowed + granted * 1e-6 + 1e-9


@given(limit=limits, now=st.integers(0, 10**6))
def test_retry_after_is_when_the_next_request_passes(limit: Limit, now: int) -> None:
    bucket = Bucket(tokens=0.0, at_ms=now)
    refused = take(bucket, limit, now)
    assert not refused.granted
    assert refused.retry_after_ms >= 1
    assert take(refused.bucket, limit, now + refused.retry_after_ms).granted
    assert not take(refused.bucket, limit, now + max(0, refused.retry_after_ms - 2)).granted


@given(limit=limits, now=st.integers(10, 10**6), back=st.integers(1, 10))
def test_time_that_runs_backwards_refills_nothing(limit: Limit, now: int, back: int) -> None:
    bucket = Bucket(tokens=0.0, at_ms=now)
    assert take(bucket, limit, now - back).bucket == take(bucket, limit, now).bucket
