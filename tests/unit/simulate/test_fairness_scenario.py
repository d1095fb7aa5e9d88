"""The fairness benchmark's traces in the simulator: the goals that a live run is held to, without its noise."""

import msgspec
import pytest

from gateway.bench import served, trace
from gateway.bench.fairness import neighbour_waits
from gateway.bench.trace import Trace
from streams.policy.config import DEFAULT, Policy
from streams.simulate.measures import Fairness, quantile
from tests.unit.simulate.trace_run import run_trace

IN_FLIGHT = 16
NO_AFFINITY = msgspec.structs.replace(DEFAULT, affinity_gpu_seconds=0.0)


def weights(one: Trace) -> dict[str, float]:
    return {user.name: user.weight for user in one.users if not user.name.startswith("idle")}


def shares(users: int, policy: Policy = NO_AFFINITY, seconds: float = 20.0) -> Fairness:
    one = trace.backlogged(users, IN_FLIGHT, seconds)
    return served.fairness(run_trace(one, IN_FLIGHT, policy), weights(one), IN_FLIGHT)


@pytest.mark.parametrize("users", [2, 10, 50])
def test_service_follows_weights(users: int) -> None:
    found = shares(users, seconds=40.0 if users == 50 else 20.0)
    assert found.jain is not None
    assert found.jain >= 0.997
    # What is known to be charged rightly lags by one task of each, whatever D is: 1 / (D + 1) of the bound.
    assert found.lag_over_bound == pytest.approx(1 / (IN_FLIGHT + 1), rel=0.05)
    assert found.together_seconds > 15


@pytest.mark.parametrize("users", [2, 10])
def test_strangers_stay_within_the_bound(users: int) -> None:
    """Nothing is known of them, so all their first tasks are charged by the same guess."""
    one = trace.backlogged(users, IN_FLIGHT, 20.0, known=False)
    found = served.fairness(run_trace(one, IN_FLIGHT, NO_AFFINITY), weights(one), IN_FLIGHT)
    assert found.lag_over_bound <= 1.0
    assert found.jain is not None
    assert found.jain >= 0.997


@pytest.mark.parametrize("users", [2, 10])
def test_affinity_stays_within_its_own_bound(users: int) -> None:
    """With affinity A a pair may differ by A more."""
    found = shares(users, DEFAULT)
    pair_bound = found.lag / found.lag_over_bound
    assert found.lag <= pair_bound + DEFAULT.affinity_gpu_seconds


def test_an_idle_users_first_job_goes_within_a_round() -> None:
    one = trace.backlogged(50, IN_FLIGHT, 20.0, idle=5)
    run = run_trace(one, IN_FLIGHT, NO_AFFINITY)
    assert max(served.rounds_before_first_start(run, f"idle{k}", IN_FLIGHT) for k in range(5)) <= 1.0


def test_an_idle_users_first_job_beside_affinity_goes_within_a_round() -> None:
    one = trace.backlogged(50, IN_FLIGHT, 20.0, idle=5)
    run = run_trace(one, IN_FLIGHT, DEFAULT)
    assert max(served.rounds_before_first_start(run, f"idle{k}", IN_FLIGHT) for k in range(5)) <= 1.0


def test_neighbours_of_a_flood_wait_for_one_task_at_most() -> None:
    run = run_trace(trace.neighbours(IN_FLIGHT, 20.0, flooded=True), IN_FLIGHT, NO_AFFINITY)
    p99 = quantile(neighbour_waits(run), 0.99)
    assert p99 is not None
    assert p99 < 0.25  # the flooder's tasks take 0.2 s


def test_fairness_costs_no_throughput() -> None:
    one = trace.backlogged(10, IN_FLIGHT, 20.0)
    fair = served.throughput(run_trace(one, IN_FLIGHT, NO_AFFINITY))
    fcfs = served.throughput(run_trace(trace.first_come_first_served(one), IN_FLIGHT, NO_AFFINITY))
    assert fair / fcfs >= 0.98


def test_first_come_first_served_keeps_the_order_of_arrival() -> None:
    one = trace.first_come_first_served(trace.backlogged(10, IN_FLIGHT, 5.0))
    run = run_trace(one, IN_FLIGHT, NO_AFFINITY)
    firsts = list(dict.fromkeys(job for _, what, _, job, _ in run.moments if what == 1))
    assert firsts == sorted(firsts)


def test_traces_are_the_same_every_time() -> None:
    assert trace.backlogged(10, 16, 5.0, idle=2) == trace.backlogged(10, 16, 5.0, idle=2)
    assert trace.neighbours(16, 5.0, flooded=True) == trace.neighbours(16, 5.0, flooded=True)


def test_users_span_the_whole_range_of_weights_and_costs() -> None:
    for count in (2, 10, 50):
        users = trace.spread_users(count)
        assert {min(u.weight for u in users), max(u.weight for u in users)} == {1.0, 10.0}
        assert {min(u.cost_seconds for u in users), max(u.cost_seconds for u in users)} == {0.05, 1.0}
        assert len({u.cost_seconds for u in users}) == count
