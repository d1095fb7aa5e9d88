"""Timers against a plain dictionary, and delays of retries."""

from hypothesis import given
from hypothesis import strategies as st

from schemas.jobs import RETRYABLE_ERRORS
from streams.policy.config import Retry
from streams.policy.retries import JITTERED, delay_ms
from streams.policy.timers import Timers

keys = st.tuples(st.just("job"), st.sampled_from("abcdef"))


@given(st.lists(st.tuples(st.sampled_from(["push", "cancel", "pop"]), keys, st.integers(0, 50)), max_size=200))
def test_timers_say_what_a_dictionary_says(steps: list[tuple[str, tuple[str, str], int]]) -> None:
    timers, known = Timers(), dict[tuple[str, str], int]()
    for action, key, at in steps:
        if action == "push":
            timers.push(at, key)
            known[key] = at
        elif action == "cancel":
            assert timers.cancel(key) == (known.pop(key, None) is not None)
        else:
            due = sorted((when, one) for one, when in known.items() if when <= at)
            assert timers.pop_due(at) == [one for _, one in due]
            for _, one in due:
                del known[one]
        assert len(timers) == len(known)
        assert timers.next_due() == min(known.values(), default=None)
        assert timers.due_of(key) == known.get(key)


def test_moved_timers_do_not_pile_up() -> None:
    timers = Timers()
    for at in range(10_000):
        timers.push(at, ("job", "a"))
    assert len(timers._heap) < 100


RETRY = Retry(max_attempts=9, base_seconds=1.0, cap_seconds=8.0)


def test_transient_errors_go_at_once_then_wait_longer_and_longer() -> None:
    assert [delay_ms(RETRY, "transient", attempt, "x") for attempt in range(1, 7)] == [0, 1000, 2000, 4000, 8000, 8000]


@given(st.sampled_from(sorted(JITTERED)), st.integers(1, 60), st.text(max_size=20))
def test_jitter_is_full_and_the_same_in_a_replay(error_class: str, attempt: int, salt: str) -> None:
    delay = delay_ms(RETRY, error_class, attempt, salt)
    assert 0 <= delay < min(8000, 1000 * 2 ** (attempt - 1))
    assert delay == delay_ms(RETRY, error_class, attempt, salt)


def test_jitter_spreads_over_the_whole_range() -> None:
    delays = [delay_ms(RETRY, "oom", 3, f"job-{n}") for n in range(4000)]
    for quarter in range(4):
        assert 900 < sum(1000 * quarter <= delay < 1000 * (quarter + 1) for delay in delays) < 1100


def test_who_refuses_says_how_long_within_the_cap() -> None:
    assert delay_ms(RETRY, "transient", 1, "x", 3.0) == 3000
    assert delay_ms(RETRY, "rate_limited", 1, "x", 3600.0) == 8000
    assert delay_ms(RETRY, "transient", 5, "x", 3.0) == 8000


def test_jittered_classes_are_retried_at_all() -> None:
    assert JITTERED <= RETRYABLE_ERRORS
