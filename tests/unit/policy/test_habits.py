"""What a user's tasks cost is learned of each user."""

import msgspec
import pytest

from streams.policy.config import DEFAULT, digest, dump_policy
from tests.support.world import World


def world_of(**policy: object) -> World:
    world = World()
    chosen = msgspec.structs.replace(DEFAULT, **policy)
    world.append({"kind": "policy_changed", "policy": {"digest": digest(chosen), "body": dump_policy(chosen)}})
    return world


def finish(world: World, job_id: str, gpu_seconds: float) -> None:
    """All three stages of the only job that runs."""
    for _ in range(3):
        (slot,) = [number for number, place in world.slots.items() if job_id in place.items]
        world.settle(slot, gpu_seconds=gpu_seconds)


def charged(world: World, job_id: str) -> float:
    return world.scheduler.state.jobs[job_id].estimate


def test_users_are_charged_what_their_own_tasks_cost() -> None:
    world = World()
    world.join(0)
    for user, cost in (("ann", 9.0), ("bob", 1.0)):
        world.submit((f"{user}-1", user))
        finish(world, f"{user}-1", cost)
    world.submit(("ann-2", "ann"))
    assert charged(world, "ann-2") == pytest.approx(9.0)
    finish(world, "ann-2", 4.0)
    world.submit(("bob-2", "bob"))
    assert charged(world, "bob-2") == pytest.approx(1.0)
    finish(world, "bob-2", 1.0)
    world.submit(("ann-3", "ann"))
    assert charged(world, "ann-3") == pytest.approx(9.0 + DEFAULT.cost_decay * (4.0 - 9.0))


def test_a_stranger_is_charged_the_mean_of_all() -> None:
    world = World()
    world.join(0)
    world.submit(("a", "ann"))
    finish(world, "a", 9.0)
    world.submit(("b", "bob"))
    mean = world.scheduler.state.costs["synthetic/generate@1 main standard"]
    assert charged(world, "b") == pytest.approx(mean)


def test_failed_attempts_teach_nothing() -> None:
    world = World()
    world.join(0)
    world.submit(("a", "ann"))
    world.settle(0, "failed", gpu_seconds=500.0, error_class="permanent")
    assert world.scheduler.state.habits == {}


def test_users_who_were_long_away_are_strangers_again() -> None:
    world = world_of(remember_ms=60_000)
    world.join(0)
    for user in ("ann", "bob"):
        world.submit((user, user))
        finish(world, user, 5.0)
        world.wait(40)
    assert set(world.scheduler.state.habits) == {"bob"}
    world.wait(40)
    assert world.scheduler.state.habits == {}
