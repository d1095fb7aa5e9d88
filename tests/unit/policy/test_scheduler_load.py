"""Reports of the load, levels, and what a level takes away."""

from typing import Any

import pytest

from schemas.codec import Codec
from schemas.registry import bundled
from streams.policy.config import Level, Load, Policy
from streams.policy.decisions import Decision, Platform, Report
from streams.policy.scheduler import Scheduler
from streams.policy.state import SchedulerState
from tests.support.world import World, tenant

SHORT = Load(
    levels=(
        Level(wait_seconds=1.0, age_seconds=1e6),
        Level(wait_seconds=10.0, age_seconds=1e6),
        Level(wait_seconds=100.0, age_seconds=1e6),
    )
)
LEVELS = Policy(load=SHORT, costs={"synthetic/generate": 1.0})


def loaded(tasks: int, **given: Any) -> World:
    """One slot, and so many jobs behind the one that runs, of a user each."""
    world = World(scheduler=Scheduler(state=SchedulerState(policy=LEVELS)))
    world.join(0)
    world.submit(*((f"j{number}", f"user-{number}") for number in range(tasks + 1)), **given)
    return world


def report(decisions: list[Decision]) -> dict[str, Any]:
    (found,) = [decision.load for decision in decisions if isinstance(decision, Report)]
    return found


def test_a_report_tells_how_lanes_and_users_stand() -> None:
    world = World()
    world.join(0, capacity=2)
    world.append(tenant("bob", tier="pro"))
    world.submit(*((f"a{n}", "ann") for n in range(3)))
    world.submit(*((f"b{n}", "bob") for n in range(3)), lane="batch")
    load = report(world.wait(1))
    assert (load["domain"], load["queued_tasks"], load["running_tasks"], load["capacity"]) == ("main", 4, 2, 2)
    rows = {row["user_id"]: row for row in load["backlog"]}
    assert (rows["bob"]["queued_tasks"], rows["bob"]["lane"]) == (3, "batch")
    assert rows["ann"]["step"] == pytest.approx(4 * rows["bob"]["step"])
    lanes = {lane["lane"]: lane for lane in load["lanes"]}
    assert [lanes[name]["queued_tasks"] for name in ("interactive", "standard", "batch")] == [0, 1, 3]
    assert lanes["batch"]["tag_gpu_seconds"]


def test_a_report_fits_its_schema() -> None:
    world = loaded(20)
    load = report(world.wait(1))
    codec = Codec(bundled())
    assert codec.decode(codec.encode("domain_load", load), "domain_load") == load


def test_reports_come_once_a_second() -> None:
    world = World()
    assert [len(world.wait(0.09)) for _ in range(30)].count(1) == 3


def test_a_long_queue_is_reported_in_short() -> None:
    world = World()
    world.submit(*((f"j{n}", f"user-{n}") for n in range(3_000)))
    world.submit(*((f"k{n}", "flood") for n in range(20)))
    load = report(world.wait(1))
    assert load["queued_tasks"] == 3_020
    assert [(row["user_id"], row["queued_tasks"]) for row in load["backlog"]] == [("flood", 20)]
    standard = load["lanes"][1]
    # The histogram counts work with the stages after it.
    assert 0.9 < sum(standard["tag_gpu_seconds"]) / (3 * standard["queued_gpu_seconds"]) < 1.1


def test_levels_follow_the_predicted_wait_and_are_told() -> None:
    world = loaded(20)
    decisions = world.wait(1)
    assert report(decisions)["level"] == 2
    assert report(decisions)["predicted_wait_seconds"] == pytest.approx(20 * 1.1)
    assert [decision.event["kind"] for decision in decisions if isinstance(decision, Platform)] == ["load_level"]
    assert report(world.wait(1))["refused_tiers"] == []


def test_level_three_says_whom_it_refuses_and_for_how_long() -> None:
    load = report(loaded(150).wait(1))
    assert (load["level"], load["refused_tiers"], load["refused_lanes"]) == (3, ["free"], ["batch"])
    assert load["retry_after_seconds"] >= 150 - 0.7 * 100


def test_what_only_a_users_own_cap_holds_back_is_no_load() -> None:
    world = World(scheduler=Scheduler(state=SchedulerState(policy=LEVELS)))
    world.join(0, capacity=5)
    world.submit(*((f"j{n}", "ann") for n in range(500)))
    assert report(world.wait(60))["level"] == 0


def test_free_users_get_less_under_load_and_are_told_so() -> None:
    world = loaded(20, quality="high", texture_size=4096)
    world.append(tenant("user-2", tier="pro"))
    world.wait(1)
    world.settle(0, "failed", 1.0, "permanent")
    first = world.item()
    assert (first["user_id"], first["quality"], first["texture_size"]) == ("user-1", "draft", 2048)
    assert len(first["adjustments"]) == 2
    world.settle(0, "failed", 1.0, "permanent")
    paid = world.item()
    assert (paid["user_id"], paid["quality"], paid["texture_size"]) == ("user-2", "high", 2048)


def test_a_job_that_runs_keeps_its_quality() -> None:
    world = loaded(20, quality="high")
    world.wait(1)
    world.settle(0)
    while world.item()["stage"] == "generate":
        world.settle(0, "failed", 1.0, "permanent")
    assert (world.item()["quality"], world.item()["adjustments"]) == ("high", [])
