"""Which slot gets what: capacity, versions, draining, pools, caps, lanes, affinity."""

import msgspec
import pytest

from streams.policy.config import Policy, Pool
from streams.policy.scheduler import Scheduler
from streams.policy.state import SchedulerState
from tests.support.world import SERVES, World, routing, tenant


def world_of(**policy: object) -> World:
    return World(scheduler=Scheduler(state=SchedulerState(policy=msgspec.structs.replace(Policy(), **policy))))


def jobs(user: str, count: int) -> list[tuple[str, str]]:
    return [(f"{user}-{number}", user) for number in range(count)]


def test_a_slot_takes_as_many_tasks_as_it_says() -> None:
    world = World()
    world.join(0, capacity=3)
    world.submit(*jobs("ann", 4))
    assert len(world.slots[0].items) == 3
    world.settle(0, job_id="ann-1")
    assert len(world.slots[0].items) == 3


def test_tasks_are_spread_over_slots() -> None:
    world = World()
    world.join(0, capacity=3)
    world.join(1, capacity=3)
    world.submit(*jobs("ann", 2), *jobs("bob", 2))
    assert [len(place.items) for place in world.slots.values()] == [2, 2]


def test_a_version_that_no_slot_has_waits_and_blocks_nobody() -> None:
    world = World()
    world.join(0, versions=["synthetic@1"])
    world.submit(("j", "ann"), model_version="2")
    world.submit(("k", "ann"))
    assert world.item()["job_id"] == "k"
    world.join(1, versions=["synthetic@2"])
    assert world.item(1)["model_version"] == "2"


def test_a_draining_slot_gets_nothing_until_it_says_otherwise() -> None:
    world = World()
    world.join(0)
    world.drain(0)
    world.submit(("j", "ann"))
    assert world.busy() == []
    world.drain(0, False)
    assert world.busy() == [0]


def test_a_report_of_a_former_life_changes_nothing() -> None:
    world = World()
    world.join(0)
    report = {"slot": 0, "epoch": 0, "draining": True, "dispatch_ids": [], "last_work_offset": 0}
    world.append({"kind": "slot_report", "report": report})
    world.submit(("j", "ann"))
    assert world.busy() == [0]


def test_a_join_that_is_repeated_after_the_loss_brings_nobody_back() -> None:
    world = World()
    world.join(0)
    join = world.inbox[-1]["entries"][0]
    world.lose(0)
    world.append(join)
    world.submit(("j", "ann"))
    assert world.scheduler.queued_tasks == 1


def test_the_fast_pool_takes_interactive_first_whatever_its_share() -> None:
    world = World()
    world.submit(*jobs("ann", 5), lane="interactive")
    world.submit(*jobs("bob", 5))
    world.join(0, pool="fast", capacity=4)
    assert {item["lane"] for item in world.slots[0].items.values()} == {"interactive"}


def test_the_fast_pool_lends_all_but_its_reserve() -> None:
    world = World()
    world.join(0, pool="fast", capacity=3)
    world.submit(*jobs("bob", 5), lane="batch")
    assert len(world.slots[0].items) == 2
    world.submit(("urgent", "ann"), lane="interactive")
    assert "urgent" in world.slots[0].items


def test_other_slots_are_used_before_fast_ones_are_lent() -> None:
    world = World()
    world.join(0, pool="fast", capacity=2)
    world.join(1)
    world.submit(("j", "ann"))
    assert world.busy() == [1]


def test_the_batch_pool_never_serves_interactive() -> None:
    world = World()
    world.join(0, pool="batch", capacity=3)
    world.submit(("urgent", "ann"), lane="interactive")
    world.submit(("later", "ann"), lane="batch")
    assert list(world.slots[0].items) == ["later"]


def test_a_user_at_the_cap_waits_while_others_go_on() -> None:
    world = World()
    world.append(tenant("ann", max_running=2))
    world.join(0, capacity=5)
    world.submit(*jobs("ann", 5))
    world.submit(*jobs("bob", 2))
    assert (world.running_of("ann"), world.running_of("bob")) == (2, 2)
    world.settle(0, job_id="ann-0")
    assert world.running_of("ann") == 2


def test_a_raised_cap_acts_at_once() -> None:
    world = World()
    world.append(tenant("ann", max_running=1))
    world.join(0, capacity=5)
    world.submit(*jobs("ann", 5))
    world.append(tenant("ann", tier="pro"))
    assert world.running_of("ann") == 5


def test_a_user_whose_cap_is_nought_starts_nothing() -> None:
    world = World()
    world.append(tenant("ann", max_running=0))
    world.join(0)
    world.submit(("j", "ann"))
    assert world.busy() == []
    world.append(tenant("ann"))
    assert world.busy() == [0]


def test_lanes_share_by_weight_over_all_slots() -> None:
    world = World()
    for lane in ("batch", "standard", "interactive"):
        world.append(tenant(lane, tier="enterprise"))
        world.submit(*jobs(lane, 200), lane=lane)
    world.join(0, serves=SERVES[:1])
    order = []
    for _ in range(100):
        order.append(world.item()["lane"])
        world.settle(0, gpu_seconds=0.05)
    shares = [order.count(lane) for lane in ("interactive", "standard", "batch")]
    assert [round(share / 5) for share in shares] == [14, 5, 1]


def test_users_share_by_tier_and_personal_weight() -> None:
    world = world_of(affinity_gpu_seconds=0.0)
    world.append(tenant("ann", tier="pro", weight=0.5), tenant("bob"))
    world.submit(*jobs("ann", 100), *jobs("bob", 100))
    world.join(0, serves=SERVES[:1])
    order = []
    for _ in range(60):
        order.append(world.item()["user_id"])
        world.settle(0, gpu_seconds=0.05)
    assert order.count("ann") == 40


def test_a_warm_slot_takes_its_model_first_within_the_bound() -> None:
    for slack, expected in ((0.0, "b"), (1.0, "c")):
        world = world_of(affinity_gpu_seconds=slack)
        world.join(0, serves=SERVES[:1])
        world.submit(("a", "ann"))  # version 1 is warm now
        world.submit(("b", "bob"), model_version="2")
        world.submit(("c", "cat"))
        world.settle(0, gpu_seconds=0.05)
        assert world.item()["job_id"] == expected


def test_a_task_is_passed_for_warmth_only_so_long() -> None:
    world = world_of(affinity_gpu_seconds=0.5)
    world.join(0, serves=SERVES[:1])
    world.submit(("a", "ann"))
    world.submit(("b", "bob"), model_version="2")
    for number in range(40):  # each a new user, who starts at the virtual time
        world.submit((f"n{number}", f"new-{number}"))
    passed = 0
    while world.item()["job_id"] != "b":
        world.settle(0, gpu_seconds=0.05)
        passed += 1
    assert 5 <= passed <= 12


def test_of_a_users_tasks_warmth_does_not_pass_priority() -> None:
    world = World()
    world.join(0, serves=SERVES[:1])
    world.submit(("a", "ann"))
    world.submit(("low", "ann"), priority=4)
    world.submit(("high", "ann"), priority=1, model_version="2")
    world.settle(0)
    assert world.item()["job_id"] == "high"


def test_a_warm_slot_is_preferred_to_a_cold_one() -> None:
    world = World()
    world.append(routing(1, {"1": 1.0, "2": 0.0}))
    world.join(0, serves=SERVES[:1])
    world.submit(("a", "ann"), model_version="2")
    world.settle(0)
    world.join(1, serves=SERVES[:1])
    world.submit(("b", "bob"), model_version="2")
    assert world.busy() == [0]


def test_the_most_specialised_slot_goes_first() -> None:
    world = World()
    world.join(0)
    world.join(1, serves=SERVES[:1])
    world.submit(("j", "ann"))
    assert world.busy() == [1]


def test_pools_follow_a_new_policy() -> None:
    pools = {"main": Pool(lanes=("batch",))}
    world = world_of(pools=pools)
    world.join(0)
    world.submit(("j", "ann"))
    assert world.busy() == []


def test_who_waits_for_what_nobody_has_saves_nothing_up() -> None:
    """A job for a version that no slot has must not earn its user, or its lane, a turn for every turn of others."""
    world = World()
    world.join(0, serves=SERVES[:1], versions=["synthetic@1"])
    for lane, saver in (("standard", "saver"), ("interactive", "other")):
        world.submit((f"{saver}-pinned", saver), model_version="2", lane=lane)
    world.submit(*jobs("busy", 200))
    for _ in range(100):
        world.settle(0, gpu_seconds=0.05)
    world.submit(*jobs("saver", 50))
    world.submit(*jobs("other", 50), lane="interactive")
    order = []
    for _ in range(38):
        order.append(world.item()["user_id"])
        world.settle(0, gpu_seconds=0.05)
    assert order.count("other") == pytest.approx(38 * 70 / 95, abs=2)
    assert order.count("saver") == pytest.approx(order.count("busy"), abs=2)


def test_who_waited_for_a_slot_that_comes_back_keeps_the_place() -> None:
    world = World()
    world.join(0, serves=SERVES[:1])
    world.submit(*jobs("ann", 50), *jobs("bob", 50))
    for _ in range(10):
        world.settle(0, gpu_seconds=0.05)
    before = dict(world.scheduler.state.clockwork.lanes["standard"].flows)
    world.lose(0)
    world.join(0, serves=SERVES[:1])
    assert world.scheduler.state.clockwork.lanes["standard"].flows == before
