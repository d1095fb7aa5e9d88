"""Lag and Jain's index on sequences whose answer is known."""

import pytest

from streams.simulate.measures import FairnessMeter, jain, quantile


def test_jain_is_one_for_equal_shares_and_one_nth_for_one_winner() -> None:
    assert jain([2.0, 2.0, 2.0]) == pytest.approx(1.0)
    assert jain([5.0, 0.0, 0.0, 0.0]) == pytest.approx(0.25)
    assert jain([]) == 1.0


def test_quantile_of_nothing_is_none() -> None:
    assert quantile([], 0.5) is None
    assert quantile([1.0, 2.0, 3.0, 4.0], 0.5) == 3.0
    assert quantile([1.0, 2.0], 0.99) == 2.0


def backlog(meter: FairnessMeter, users: str, tasks: int) -> None:
    for user in users:
        for _ in range(tasks):
            meter.ready(user, 0.0)


def test_turns_of_one_second_drift_by_one_second() -> None:
    meter = FairnessMeter({"a": 1.0, "b": 1.0}, in_flight=1)
    backlog(meter, "ab", 10)
    for at in range(8):
        meter.start("ab"[at % 2], 1.0, float(at))
    found = meter.figures(8.0)
    assert found.lag == pytest.approx(1.0)
    assert found.lag_over_bound == pytest.approx(1.0 / (2 * 2))  # (D + 1)(c_a / w_a + c_b / w_b)
    assert found.jain == pytest.approx(1.0)
    assert (found.tasks, found.together_seconds) == (8, 8.0)


def test_the_worst_interval_may_lie_in_the_middle() -> None:
    """a, b, then three times a, then b catches up: the worst interval is that of the three."""
    meter = FairnessMeter({"a": 1.0, "b": 1.0}, in_flight=0)
    backlog(meter, "ab", 20)
    for at, user in enumerate("abaaabbb"):
        meter.start(user, 1.0, float(at))
    assert meter.figures(8.0).lag == pytest.approx(3.0)


def test_weights_divide_service() -> None:
    meter = FairnessMeter({"a": 4.0, "b": 1.0}, in_flight=0)
    backlog(meter, "ab", 20)
    for at, user in enumerate("aaaabaaaab"):
        meter.start(user, 1.0, float(at))
    found = meter.figures(10.0)
    assert found.lag == pytest.approx(1.0)
    assert found.jain == pytest.approx(1.0)


def test_service_counts_only_while_both_wait() -> None:
    """b comes late: what a got before is no lag."""
    meter = FairnessMeter({"a": 1.0, "b": 1.0}, in_flight=0)
    backlog(meter, "a", 20)
    for at in range(10):
        meter.start("a", 1.0, float(at))
    meter.ready("b", 10.0)
    meter.ready("b", 10.0)
    meter.start("b", 1.0, 10.0)
    meter.start("a", 1.0, 11.0)
    assert meter.figures(12.0).lag == pytest.approx(1.0)


def test_who_waits_for_nothing_is_owed_nothing() -> None:
    """After b's last task has started, a may have everything."""
    meter = FairnessMeter({"a": 1.0, "b": 1.0}, in_flight=0)
    backlog(meter, "a", 20)
    meter.ready("b", 0.0)
    meter.start("b", 1.0, 0.0)
    for at in range(1, 10):
        meter.start("a", 1.0, float(at))
    found = meter.figures(10.0)
    assert found.lag == pytest.approx(1.0)
    assert found.together_seconds == 0.0


def test_withdrawn_tasks_end_a_backlog() -> None:
    meter = FairnessMeter({"a": 1.0, "b": 1.0}, in_flight=0)
    backlog(meter, "a", 5)
    meter.ready("b", 0.0)
    meter.withdraw("b", 0.0)
    for at in range(5):
        meter.start("a", 1.0, float(at))
    assert meter.figures(5.0).lag == 0.0
