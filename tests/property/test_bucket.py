"""A token bucket never gives more than its burst plus its rate in any interval, waiters included, and is exact."""

from hypothesis import given
from hypothesis import strategies as st

from streams.policy.bucket import Bucket, Limit, is_full, reserve

limits = st.builds(Limit, requests_per_minute=st.floats(0.1, 6000), burst_requests=st.integers(1, 50))
gaps_lists = st.lists(st.integers(0, 20_000), min_size=1, max_size=60)


def ask(bucket: Bucket, limit: Limit, now: int, *, wait: bool) -> tuple[Bucket, int | None]:
    """The bucket after asking, and when the request goes on; None: it was refused."""
    found = reserve(bucket, limit, now)
    if found.due_ms > now and not wait:
        return bucket, None
    return found.bucket, found.due_ms


@given(limit=limits, gaps=gaps_lists, waits=st.lists(st.booleans(), min_size=60, max_size=60))
def test_grants_stay_within_burst_and_rate_in_any_interval(limit: Limit, gaps: list[int], waits: list[bool]) -> None:
    bucket, now, grants = Bucket(), 0, list[int]()
    for gap, wait in zip(gaps, waits, strict=False):
        now += gap
        bucket, due = ask(bucket, limit, now, wait=wait)
        grants += [] if due is None else [due]
    assert grants == sorted(grants)  # nobody overtakes who waits
    for first, start in enumerate(grants):
        for last in range(first, len(grants)):
            count, span = last - first + 1, grants[last] - start
            # Each grant may round up by a millionth of a token, and a waiter's time by a millisecond.
            allowed = limit.burst_requests + (span + 1) * limit.requests_per_minute / 60_000
            assert count <= allowed + count * 1e-6 + 1e-9


@given(limit=limits, now=st.integers(0, 10**6))
def test_a_refusal_says_when_the_next_request_passes(limit: Limit, now: int) -> None:
    bucket = Bucket(tokens=0.0, at_ms=now)
    due = reserve(bucket, limit, now).due_ms
    assert due > now
    assert reserve(bucket, limit, due).due_ms == due
    assert reserve(bucket, limit, max(now, due - 2)).due_ms > max(now, due - 2)


@given(limit=limits, now=st.integers(0, 10**6), count=st.integers(1, 20))
def test_waiters_are_served_one_after_the_other(limit: Limit, now: int, count: int) -> None:
    """n waiters before an empty bucket: the n-th goes on when n tokens have come."""
    bucket, due = Bucket(tokens=0.0, at_ms=now), now
    for _ in range(count):
        reserved = reserve(bucket, limit, now)
        bucket, due = reserved.bucket, reserved.due_ms
    assert abs((due - now) - count * 60_000 / limit.requests_per_minute) <= 1.001


@given(limit=limits, now=st.integers(10, 10**6), back=st.integers(1, 10))
def test_time_that_runs_backwards_refills_nothing(limit: Limit, now: int, back: int) -> None:
    bucket = Bucket(tokens=0.0, at_ms=now)
    assert reserve(bucket, limit, now - back).bucket == reserve(bucket, limit, now).bucket


@given(limit=limits, gaps=gaps_lists)
def test_a_full_bucket_may_be_forgotten(limit: Limit, gaps: list[int]) -> None:
    bucket, now = Bucket(), 0
    for gap in gaps:
        now += gap
        if is_full(bucket, limit, now):
            assert reserve(bucket, limit, now).remaining == reserve(Bucket(), limit, now).remaining
        bucket, _ = ask(bucket, limit, now, wait=True)
