"""Routing: exact shares, users that stay on their arm, and the guard."""

from typing import Any

import msgspec
import pytest

from streams.policy.routing import (
    ArmStats,
    Routed,
    accept,
    choose,
    problem,
    promoted,
    rolled_back,
    routing_event,
    shares,
    verdict,
)

USERS = [f"user-{number}" for number in range(10_000)]


def rule(shares: dict[str, float], **changes: Any) -> dict[str, Any]:
    return {
        "name": "synthetic/generate",
        "pipeline_id": "synthetic",
        "stage": "generate",
        "experiment": "canary-7",
        "arms": [{"model_version": version, "weight": weight} for version, weight in shares.items()],
        "stable": "1",
        "guard": {"min_tasks": 50, "failure_margin": 0.05, "p95_margin": 0.5},
        "revision": 1,
        "changed_by": "op",
        "reason": "",
        "changed_at": 0,
        **changes,
    }


def arm(tasks: int = 0, failures: int = 0, seconds: float = 1.0) -> ArmStats:
    stats = ArmStats()
    for number in range(tasks):
        failed = number < failures
        stats.note(
            outcome="failed" if failed else "succeeded",
            error_class="permanent" if failed else None,
            run_seconds=seconds,
        )
    return stats


@pytest.mark.parametrize("canary", [1, 5, 10, 25, 50])
@pytest.mark.parametrize("experiment", ["canary-7", "a", "b", "c", "d"])
def test_shares_are_exact_to_one_percent_over_10_000_users(canary: float, experiment: str) -> None:
    found = rule({"1": 100 - canary, "2": canary}, experiment=experiment)
    served = sum(choose(found, user) == "2" for user in USERS)
    assert served / len(USERS) == pytest.approx(canary / 100, abs=0.01)


def test_shares_of_three_arms_that_do_not_sum_to_100() -> None:
    found = rule({"1": 5, "2": 3, "3": 2})
    chosen = [choose(found, user) for user in USERS]
    for version, share in {"1": 0.5, "2": 0.3, "3": 0.2}.items():
        assert chosen.count(version) / len(USERS) == pytest.approx(share, abs=0.01)


def test_nobody_leaves_a_canary_that_grows() -> None:
    before: set[str] = set()
    for canary in (1, 5, 10, 25, 50, 75, 100):
        served = {user for user in USERS if choose(rule({"1": 100 - canary, "2": canary}), user) == "2"}
        assert before <= served
        before = served
    assert len(before) == len(USERS)


def test_users_move_only_to_the_arm_that_grows() -> None:
    before = rule({"1": 80, "2": 10, "3": 10})
    after = rule({"1": 80, "2": 30, "3": 10})
    for user in USERS:
        if choose(before, user) != choose(after, user):
            assert choose(after, user) == "2"


def test_another_experiment_draws_anew_and_the_order_of_arms_does_not_matter() -> None:
    one, other = rule({"1": 50, "2": 50}), rule({"1": 50, "2": 50}, experiment="x")
    same = sum(choose(one, user) == choose(other, user) for user in USERS)
    assert same / len(USERS) == pytest.approx(0.5, abs=0.02)
    turned = rule({"2": 50, "1": 50})
    assert all(choose(one, user) == choose(turned, user) for user in USERS)


def test_an_arm_without_a_share_serves_nobody() -> None:
    found = rule({"1": 1, "2": 0})
    assert all(choose(found, user) == "1" for user in USERS)
    assert choose(rule({"1": 0, "2": 0}), "u") == "1"


def test_the_guard_waits_for_both_arms() -> None:
    found = rule({"1": 90, "2": 10})
    assert verdict(found, {"1": arm(50), "2": arm(49, failures=49)}) is None
    assert verdict(found, {"1": arm(49), "2": arm(50, failures=50)}) is None
    assert verdict(found, {"2": arm(50, failures=50)}) is None
    fallen = verdict(found, {"1": arm(50), "2": arm(50, failures=50)})
    assert fallen is not None
    assert fallen.model_version == "2"
    assert "failure rate 1.000 of 50 tasks against 0.000 of 50" in fallen.reason


def test_the_guard_allows_its_margins() -> None:
    found = rule({"1": 90, "2": 10})
    assert verdict(found, {"1": arm(100, failures=5), "2": arm(100, failures=10)}) is None
    assert verdict(found, {"1": arm(100, failures=5), "2": arm(100, failures=11)}) is not None
    assert verdict(found, {"1": arm(100, seconds=1.0), "2": arm(100, seconds=1.4)}) is None
    slow = verdict(found, {"1": arm(100, seconds=1.0), "2": arm(100, seconds=1.7)})
    assert slow is not None
    assert slow.reason.startswith("p95 ")


def test_no_guard_no_verdict() -> None:
    assert verdict(rule({"1": 90, "2": 10}, guard=None), {"1": arm(99), "2": arm(99, failures=99)}) is None


def test_losses_and_cancels_say_nothing_of_a_version() -> None:
    stats = ArmStats()
    stats.note(outcome="failed", error_class="lost", run_seconds=1)
    stats.note(outcome="failed", error_class="rate_limited", run_seconds=1)
    stats.note(outcome="canceled", error_class="canceled", run_seconds=1)
    assert stats.tasks == 0


def test_quantiles_are_within_their_error_in_bounded_memory() -> None:
    stats = ArmStats()
    values = [1.002**number / 1000 for number in range(10_000)]
    for value in values:
        stats.note(outcome="succeeded", error_class=None, run_seconds=value)
    for share in (0.0, 0.25, 0.5, 0.95, 1.0):
        exact = values[round(share * (len(values) - 1))]
        assert stats.quantile_seconds(share) == pytest.approx(exact, rel=0.027)
    for value in (0.0, 1e-9, 1e30):
        stats.note(outcome="succeeded", error_class=None, run_seconds=value)
    assert len(stats.seconds) <= 415
    assert ArmStats().quantile_seconds(0.5) is None


def test_older_rules_are_ignored_and_statistics_follow_the_experiment() -> None:
    first = accept(None, rule({"1": 90, "2": 10}))
    assert first is not None
    first.note("2", outcome="succeeded", error_class=None, run_seconds=1)
    first.note("9", outcome="succeeded", error_class=None, run_seconds=1)
    assert set(first.arms) == {"2"}
    assert accept(first, rule({"1": 50, "2": 50})) is None
    grown = accept(first, rule({"1": 50, "2": 50}, revision=2))
    assert grown is not None
    assert grown.arms["2"].tasks == 1
    other = accept(first, rule({"1": 50, "2": 50}, revision=2, experiment="next"))
    assert other is not None
    assert other.arms == {}


def test_an_arm_that_was_taken_back_begins_anew() -> None:
    known = Routed(rule=rule({"1": 90, "2": 10}), arms={"1": arm(60), "2": arm(60, failures=60)})
    back = accept(known, rolled_back(known.rule, by="guard", reason="bad", at=1))
    assert back is not None
    assert back.arms["2"].tasks == 60  # still to be seen
    again = accept(back, rule({"1": 90, "2": 10}, revision=3))
    assert again is not None
    assert again.arms["1"].tasks == 60
    assert verdict(again.rule, again.arms) is None


def test_promote_makes_the_canary_stable() -> None:
    after = promoted(rule({"1": 90, "2": 10}), "2", by="op", reason="good", at=5)
    assert shares(after) == "1=0 2=100"
    assert (after["stable"], after["revision"], after["changed_by"], after["changed_at"]) == ("2", 2, "op", 5)
    with pytest.raises(KeyError):
        promoted(after, "3", by="op", reason="", at=5)


def test_roll_back_gives_the_share_to_the_stable_arm() -> None:
    before = rule({"1": 80, "2": 15, "3": 5})
    assert shares(rolled_back(before, version="2", by="guard", reason="", at=5)) == "1=95 2=0 3=5"
    assert shares(rolled_back(before, by="op", reason="", at=5)) == "1=100 2=0 3=0"
    assert rolled_back(before, by="op", reason="", at=5)["revision"] == 2


def test_every_user_is_back_after_a_roll_back() -> None:
    after = rolled_back(rule({"1": 80, "2": 20}), by="op", reason="", at=5)
    assert all(choose(after, user) == "1" for user in USERS[:100])


def test_the_event_names_old_and_new_shares() -> None:
    before = rule({"1": 80, "2": 20})
    event = routing_event(before, rolled_back(before, by="guard", reason="p95", at=5))
    assert (event["detail"]["before"], event["detail"]["after"]) == ("1=80 2=20", "1=100 2=0")
    assert event["detail"]["changed_by"] == "guard"
    assert routing_event(None, before)["detail"]["before"] == "none"


def test_the_state_survives_a_snapshot() -> None:
    state = Routed(rule=rule({"1": 90, "2": 10}), arms={"2": arm(10, failures=2)})
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=Routed) == state


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"arms": []}, "arms"),
        ({"arms": [{"model_version": "", "weight": 1}]}, "arms"),
        ({"arms": [{"model_version": "1", "weight": -1}]}, "arms"),
        ({"arms": [{"model_version": "1", "weight": float("nan")}]}, "arms"),
        ({"arms": [{"model_version": "1", "weight": float("inf")}]}, "arms"),
        ({"arms": [{"model_version": "1", "weight": 0}]}, "arms"),
        ({"arms": [{"model_version": "1", "weight": 1}] * 2}, "arms"),
        ({"stable": "9"}, "stable"),
        ({"guard": {"min_tasks": 0, "failure_margin": 0, "p95_margin": 0}}, "guard.min_tasks"),
        ({"guard": {"min_tasks": 1, "failure_margin": -1, "p95_margin": 0}}, "guard.failure_margin"),
        ({"guard": {"min_tasks": 1, "failure_margin": 0, "p95_margin": float("nan")}}, "guard.p95_margin"),
    ],
)
def test_what_is_wrong_with_a_rule_is_named(changes: dict[str, Any], field: str) -> None:
    assert problem(rule({"1": 90, "2": 10})) is None
    found = problem({**rule({"1": 90, "2": 10}), **changes})
    assert found is not None
    assert found[0] == field
