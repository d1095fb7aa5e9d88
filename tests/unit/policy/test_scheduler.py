"""The fold, one rule at a time."""

from typing import Any

from streams.policy.config import Policy
from streams.policy.decisions import Closed, Dead, Dispatch, Report, StopWork, Tell
from streams.policy.scheduler import Scheduler
from streams.policy.state import SchedulerState
from tests.support.world import World, ready


def submit(world: World, *jobs: tuple[str, str]) -> list[Any]:
    return world.append(*({"kind": "stage_ready", "ready": ready(job, user)} for job, user in jobs))


def told(world: World) -> list[tuple[str, str | None, int]]:
    return [
        (d.event["transition"], d.event["stage"], d.event["attempt"])
        for decisions in world.decided
        for d in decisions
        if isinstance(d, Tell)
    ]


def test_a_job_runs_through_its_stages_with_all_artefacts() -> None:
    world = World()
    world.join(0)
    submit(world, ("j", "ann"))
    stages = []
    while world.running:
        item = world.running[0]
        stages.append((item["stage"], item["attempt"], len(item["artefacts"])))
        item_artefact = {"role": item["stage"], "uri": "u", "sha256": "s", "bytes": 1, "media_type": "m"}
        settled = world._settled(0, world.running.pop(0), "succeeded", 1.0, None)
        world.append({"kind": "stage_settled", "settled": {**settled, "artefacts": [item_artefact]}})
    assert stages == [("generate", 1, 0), ("retopology", 1, 1), ("texture", 1, 2)]
    assert told(world) == []


def test_a_lost_slot_gives_the_task_to_another_with_the_next_attempt() -> None:
    world = World()
    world.join(0)
    submit(world, ("j", "ann"))
    world.lose(0)
    world.join(1)
    assert (world.running[1]["stage"], world.running[1]["attempt"]) == ("generate", 2)
    assert told(world) == [("stage_lost", "generate", 1)]


def test_a_task_that_loses_three_slots_fails() -> None:
    world = World()
    submit(world, ("j", "ann"))
    for _ in range(3):
        world.join(0)
        world.lose(0)
        world.wait(60)
    assert told(world)[-1] == ("failed", "generate", 3)
    assert world.ends == {"j": 1}


def test_a_restarted_worker_loses_what_its_old_life_ran() -> None:
    world = World()
    world.join(0)
    submit(world, ("j", "ann"))
    world.join(0)
    assert world.running[0]["attempt"] == 2


def test_a_lost_attempt_is_refunded_and_a_failed_one_is_not() -> None:
    world = World()
    world.join(0)
    submit(world, ("j", "ann"))
    flow = world.scheduler.state.clockwork.lanes["standard"].flows["ann"]
    charged = flow.tag
    assert charged > 0
    world.lose(0)
    assert abs(flow.tag) < 1e-9
    world.join(0)
    world.settle(0, "failed", 5.0, "transient")
    assert flow.tag >= 5.0


def test_a_settlement_of_an_older_epoch_changes_nothing() -> None:
    world = World()
    world.join(0)
    submit(world, ("j", "ann"))
    late = world._settled(0, world.running[0], "succeeded", 1.0, None)
    world.join(0)
    assert world.append({"kind": "stage_settled", "settled": late}) == []
    assert world.running[0]["attempt"] == 2


def test_cancel_of_a_queued_job_ends_it_at_once() -> None:
    world = World()
    submit(world, ("j", "ann"))
    world.append({"kind": "cancel", "cancel": {"job_id": "j", "user_id": "ann", "reason": "no"}})
    assert told(world) == [("canceled", "generate", 0)]
    world.join(0)
    assert world.running == {}


def test_cancel_of_a_running_job_goes_to_its_slot() -> None:
    world = World()
    world.join(0)
    submit(world, ("j", "ann"))
    cancel = {"kind": "cancel", "cancel": {"job_id": "j", "user_id": "ann", "reason": ""}}
    stop = world.append(cancel)
    assert stop == [StopWork(slot=0, epoch=world.epochs[0], job_id="j", stage="generate", attempt=1)]
    assert world.append(cancel) == []
    world.lose(0)
    assert told(world)[-1] == ("canceled", "generate", 1)


def test_cancel_by_a_stranger_changes_nothing() -> None:
    world = World()
    submit(world, ("j", "ann"))
    assert world.append({"kind": "cancel", "cancel": {"job_id": "j", "user_id": "eve", "reason": ""}}) == []
    world.join(0)
    assert world.running[0]["job_id"] == "j"


def test_cancel_may_come_before_its_job() -> None:
    world = World()
    world.join(0)
    world.append({"kind": "cancel", "cancel": {"job_id": "j", "user_id": "ann", "reason": ""}})
    submit(world, ("j", "ann"))
    assert world.running == {}
    assert world.ends == {"j": 1}


def test_a_job_with_an_unknown_pipeline_fails_and_blocks_nobody() -> None:
    world = World()
    world.join(0)
    odd = {**ready("odd", "ann"), "pipeline_id": "newer"}
    decisions = world.append({"kind": "stage_ready", "ready": odd}, {"kind": "stage_ready", "ready": ready("j", "ann")})
    assert [type(d) for d in decisions] == [Tell, Dead, Dispatch, Closed]


def test_a_tick_reports_the_load() -> None:
    world = World()
    world.join(0)
    submit(world, ("a", "ann"), ("b", "ann"), ("c", "bob"))
    (report,) = world.append({"kind": "tick"})
    assert isinstance(report, Report)
    load = report.load
    assert (load["queued_tasks"], load["running_tasks"], load["live_slots"]) == (2, 1, 1)
    assert {b["user_id"]: b["queued_tasks"] for b in load["backlog"]} == {"ann": 1, "bob": 1}


def test_ended_jobs_are_forgotten_after_a_day() -> None:
    world = World(scheduler=Scheduler(state=SchedulerState(policy=Policy(remember_ms=1_000))))
    world.append({"kind": "cancel", "cancel": {"job_id": "x", "user_id": "ann", "reason": ""}})
    submit(world, ("j", "ann"))
    world.append({"kind": "cancel", "cancel": {"job_id": "j", "user_id": "ann", "reason": ""}})
    world.now += 2_000
    world.append({"kind": "tick"})
    assert world.scheduler.state.finished == {}
    assert world.scheduler.state.early_cancels == {}


def test_costs_are_learned_from_what_was_measured() -> None:
    world = World()
    world.join(0)
    for number in range(30):
        submit(world, (f"j{number}", "ann"))
        while world.running:
            world.settle(0, "succeeded", 4.0)
    assert abs(world.scheduler.state.costs["synthetic/generate@1"] - 4.0) < 0.1
