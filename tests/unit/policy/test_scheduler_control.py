"""Users' commands, routing, the policy."""

from streams.policy.config import Policy, Tier, digest, dump_policy
from streams.policy.decisions import Decision, Platform, Refuse, Route
from streams.policy.scheduler import Scheduler
from tests.support.world import SERVES, World, routing, tenant


def test_reprioritise_moves_a_job_among_those_of_its_user() -> None:
    world = World()
    world.submit(("a", "ann"), ("b", "ann"), ("c", "ann"))
    world.control("reprioritise", "c", "ann", 1)
    world.control("reprioritise", "b", "eve", 1)
    world.join(0)
    assert world.item()["job_id"] == "c"
    assert world.item()["priority"] == 1


def test_paused_jobs_wait_until_they_are_resumed() -> None:
    world = World()
    world.submit(("a", "ann"), ("b", "ann"), ("c", "bob"))
    world.control("pause", "", "ann")
    world.join(0, capacity=3)
    assert list(world.slots[0].items) == ["c"]
    world.control("resume", "b", "ann")
    assert list(world.slots[0].items) == ["c", "b"]
    world.control("resume", "", "ann")
    assert list(world.slots[0].items) == ["c", "b", "a"]


def test_a_running_stage_goes_on_when_its_job_is_paused() -> None:
    world = World()
    world.join(0)
    world.submit(("j", "ann"))
    world.control("pause", "j", "ann")
    world.settle(0)
    assert world.busy() == []
    world.control("resume", "j", "ann")
    assert world.item()["stage"] == "retopology"


def test_a_paused_job_can_be_canceled() -> None:
    world = World()
    world.submit(("j", "ann"))
    world.control("pause", "j", "ann")
    world.cancel("j", "ann")
    assert world.ends == world.closed == {"j": 1}


def test_a_weight_acts_on_what_waits() -> None:
    world = World()
    world.submit(*((f"{user}-{n}", user) for n in range(50) for user in ("ann", "bob")))
    world.append(tenant("ann", weight=3.0))
    world.join(0, serves=SERVES[:1])
    order = []
    for _ in range(40):
        order.append(world.item()["user_id"])
        world.settle(0, gpu_seconds=0.05)
    assert order.count("ann") == 30


def test_routing_chooses_a_version_when_the_stage_becomes_ready() -> None:
    world = World()
    world.append(routing(1, {"1": 0.0, "2": 100.0}))
    world.join(0)
    world.submit(("j", "ann"))
    assert world.item()["model_version"] == "2"
    world.settle(0)
    assert world.item()["model_version"] == "1"  # the rule is for another stage


def test_a_pinned_version_wins_over_routing() -> None:
    world = World()
    world.append(routing(1, {"1": 0.0, "2": 100.0}))
    world.join(0)
    world.submit(("j", "ann"), model_version="1")
    assert world.item()["model_version"] == "1"


def test_an_older_rule_changes_nothing() -> None:
    world = World()
    world.append(routing(2, {"1": 100.0, "2": 0.0}))
    assert world.append(routing(1, {"1": 0.0, "2": 100.0})) == []
    world.join(0)
    world.submit(("j", "ann"))
    assert world.item()["model_version"] == "1"


def test_tasks_that_wait_for_an_arm_that_is_gone_are_routed_anew() -> None:
    world = World()
    world.append(routing(1, {"1": 0.0, "2": 100.0}))
    world.submit(("j", "ann"))
    world.append(routing(2, {"1": 100.0, "2": 0.0}))
    world.join(0)
    assert world.item()["model_version"] == "1"


def test_the_guard_rolls_a_canary_back_at_once() -> None:
    world = World()
    guard = {"min_tasks": 10, "failure_margin": 0.2, "p95_margin": 0.5}
    world.append(routing(1, {"1": 50.0, "2": 50.0}, guard=guard))
    world.join(0, serves=SERVES[:1])
    world.submit(*((f"j{n}", f"user-{n}") for n in range(200)))
    decisions: list[Decision] = []
    while not any(isinstance(decision, Route) for decision in decisions):
        bad = world.item()["model_version"] == "2"
        decisions = world.settle(0, "failed" if bad else "succeeded", 1.0, "permanent" if bad else None)
    (rule,) = [decision.rule for decision in decisions if isinstance(decision, Route)]
    assert (rule["revision"], rule["changed_by"]) == (2, "guard")
    assert {arm["model_version"]: arm["weight"] for arm in rule["arms"]} == {"1": 100.0, "2": 0.0}
    assert [decision.event["kind"] for decision in decisions if isinstance(decision, Platform)] == ["routing"]
    assert world.append({"kind": "routing_changed", "routing": rule}) == []  # it comes back through the topic
    for _ in range(20):
        assert world.item()["model_version"] == "1"
        world.settle(0)


def test_a_policy_acts_at_once_and_its_repeat_changes_nothing() -> None:
    world = World()
    world.submit(*((f"j{n}", "ann") for n in range(10)))
    world.join(0, capacity=10)
    assert world.running_of("ann") == 4
    policy = Policy(tiers={"free": Tier(max_running=6)})
    entry = {"kind": "policy_changed", "policy": {"digest": digest(policy), "body": dump_policy(policy)}}
    decisions = world.append(entry)
    assert world.running_of("ann") == 6
    assert [decision.event["kind"] for decision in decisions if isinstance(decision, Platform)] == ["policy"]
    assert world.append(entry) == []
    assert world.scheduler.state.policy_digest == digest(policy)


def test_a_policy_that_cannot_be_used_is_refused_whole() -> None:
    scheduler = Scheduler()
    entry = {"kind": "policy_changed", "at": 1, "policy": {"digest": "", "body": '{"lanes": {}}'}}
    (refusal,) = scheduler.apply(0, {"entries": [entry]})
    assert isinstance(refusal, Refuse)
    assert scheduler.state.policy == Policy()
