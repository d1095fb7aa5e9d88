"""A job's life in the fold, one rule at a time."""

from streams.policy.config import Policy
from streams.policy.decisions import Closed, Dead, Dispatch, StopWork, Tell
from streams.policy.scheduler import Scheduler
from streams.policy.state import SchedulerState
from tests.support.world import World, ready

ARTEFACT = {"role": "mesh", "uri": "u", "sha256": "s", "bytes": 1, "media_type": "m"}


def test_a_job_runs_through_its_stages_with_all_artefacts() -> None:
    world = World()
    world.join(0)
    world.submit(("j", "ann"))
    stages = []
    while world.busy():
        item = world.item()
        stages.append((item["stage"], item["attempt"], len(item["artefacts"])))
        decisions = world.settle(0, artefacts=[ARTEFACT])
    assert stages == [("generate", 1, 0), ("retopology", 1, 1), ("texture", 1, 2)]
    assert world.told == []
    assert decisions == [Closed(user_id="ann", job_ids=("j",), at=world.now)]


def test_the_request_travels_as_it_came() -> None:
    world = World()
    world.join(0)
    world.submit(("j", "ann"), lane="interactive", priority=2, quality="high", texture_size=512, traceparent="t")
    item = world.item()
    assert item["request"] == b"request of j"
    assert (item["lane"], item["priority"], item["quality"], item["texture_size"]) == ("interactive", 2, "high", 512)
    assert (item["traceparent"], item["model_version"], item["max_attempts"]) == ("t", "1", 3)


def test_a_repeated_job_goes_on_where_the_dead_one_stopped() -> None:
    world = World()
    world.join(0)
    world.submit(("j", "ann"), stage="texture", artefacts=[ARTEFACT], retry_of="dead")
    item = world.item()
    assert (item["stage"], item["stage_index"], item["artefacts"], item["retry_of"]) == (
        "texture", 2, [ARTEFACT], "dead",
    )  # fmt: skip
    world.settle(0)
    assert world.ends == {"j": 1}


def test_a_lost_slot_gives_the_task_to_another_with_the_next_attempt() -> None:
    world = World()
    world.join(0)
    world.submit(("j", "ann"))
    world.lose(0)
    world.join(1)
    assert (world.item(1)["stage"], world.item(1)["attempt"]) == ("generate", 2)
    assert world.transitions() == [("stage_lost", "generate", 1)]


def test_a_task_that_loses_three_slots_fails_into_the_dead_letters() -> None:
    world = World()
    world.submit(("j", "ann"), artefacts=[ARTEFACT], traceparent="t")
    for _ in range(3):
        world.join(0)
        decisions = world.lose(0)
        world.wait(60)
    assert world.transitions()[-1] == ("failed", "generate", 3)
    assert [type(decision) for decision in decisions] == [Tell, Dead, Tell, Closed]
    letter = next(decision.letter for decision in decisions if isinstance(decision, Dead))
    assert (letter["value"], letter["key"], letter["reason"]) == (b"request of j", b"ann", "lost")
    assert letter["job"] == {
        "job_id": "j", "user_id": "ann", "stage": "generate", "error_class": "lost", "artefacts": [ARTEFACT],
        "traceparent": "t",
    }  # fmt: skip


def test_a_job_that_shall_end_and_loses_its_last_slot_is_canceled() -> None:
    world = World()
    world.submit(("j", "ann"))
    for _ in range(2):
        world.join(0)
        world.lose(0)
        world.wait(60)
    world.join(0)
    world.cancel("j", "ann")
    world.lose(0)
    assert world.transitions()[-1] == ("canceled", "generate", 3)
    assert world.dead == []


def test_a_restarted_worker_loses_what_its_old_life_ran() -> None:
    world = World()
    world.join(0)
    world.submit(("j", "ann"))
    world.join(0)
    assert world.item()["attempt"] == 2


def test_a_lost_attempt_is_refunded_and_a_failed_one_is_not() -> None:
    world = World()
    world.join(0)
    world.submit(("j", "ann"))
    flow = world.scheduler.state.clockwork.lanes["standard"].flows["ann"]
    assert flow.tag > 0
    world.lose(0)
    assert abs(flow.tag) < 1e-9
    world.join(0)
    world.settle(0, "failed", 5.0, "transient")
    assert flow.tag >= 5.0


def test_a_refusal_of_a_provider_costs_its_user_nothing() -> None:
    world = World()
    world.join(0)
    world.submit(("j", "ann"))
    world.settle(0, "failed", 5.0, "rate_limited")
    assert abs(world.scheduler.state.clockwork.lanes["standard"].flows["ann"].tag) < 1e-9


def test_a_settlement_of_an_older_epoch_changes_nothing() -> None:
    world = World()
    world.join(0)
    world.submit(("j", "ann"))
    late = world.settlement(0, world.item())
    world.join(0)
    assert world.append({"kind": "stage_settled", "settled": late}) == []
    assert world.item()["attempt"] == 2


def test_cancel_of_a_queued_job_ends_it_at_once() -> None:
    world = World()
    world.submit(("j", "ann"))
    world.cancel("j", "ann", "no")
    assert world.transitions() == [("canceled", "generate", 0)]
    assert world.told[0]["error_message"] == "no"
    world.join(0)
    assert world.busy() == []


def test_cancel_of_a_running_job_goes_to_its_slot() -> None:
    world = World()
    world.join(0)
    world.submit(("j", "ann"))
    stop = world.cancel("j", "ann")
    assert stop == [StopWork(slot=0, epoch=1, job_id="j", stage="generate", attempt=1)]
    assert world.cancel("j", "ann") == []
    world.lose(0)
    assert world.transitions()[-1] == ("canceled", "generate", 1)


def test_cancel_between_stages_is_told_by_the_scheduler() -> None:
    world = World()
    world.join(0)
    world.submit(("j", "ann"))
    world.cancel("j", "ann")
    world.settle(0)
    assert world.transitions() == [("canceled", "retopology", 0)]


def test_cancel_by_a_stranger_changes_nothing() -> None:
    world = World()
    world.submit(("j", "ann"))
    assert world.cancel("j", "eve") == []
    world.join(0)
    assert world.item()["job_id"] == "j"


def test_cancel_may_come_before_its_job() -> None:
    world = World()
    world.join(0)
    world.cancel("j", "eve")
    world.cancel("j", "ann")
    world.submit(("j", "ann"))
    assert world.busy() == []
    assert world.ends == world.closed == {"j": 1}


def test_a_job_with_an_unknown_pipeline_fails_and_blocks_nobody() -> None:
    world = World()
    world.join(0)
    odd = ready("odd", "ann", pipeline_id="newer")
    decisions = world.append({"kind": "stage_ready", "ready": odd}, {"kind": "stage_ready", "ready": ready("j", "ann")})
    assert [type(decision) for decision in decisions] == [Tell, Dead, Dispatch, Closed]


def test_ended_jobs_of_a_record_are_closed_by_user() -> None:
    world = World()
    world.submit(("a", "ann"), ("b", "bob"), ("c", "ann"))
    cancels = [
        {"job_id": job, "user_id": user, "reason": ""} for job, user in (("a", "ann"), ("b", "bob"), ("c", "ann"))
    ]
    decisions = world.append(*({"kind": "cancel", "cancel": cancel} for cancel in cancels))
    closed = [(d.user_id, d.job_ids) for d in decisions if isinstance(d, Closed)]
    assert closed == [("ann", ("a", "c")), ("bob", ("b",))]


def test_ended_jobs_are_known_for_a_while() -> None:
    world = World(scheduler=Scheduler(state=SchedulerState(policy=Policy(remember_ms=1_000))))
    world.join(0)
    world.submit(("j", "ann"))
    world.cancel("other", "ann")
    for _ in range(3):
        world.settle(0)
    assert world.submit(("j", "ann")) == []
    world.wait(2)
    assert world.scheduler.state.finished == {}
    assert world.scheduler.state.early_cancels == {}


def test_costs_are_learned_by_kind_pool_and_quality() -> None:
    world = World()
    world.join(0, pool="a")
    for number in range(30):
        world.submit((f"j{number}", "ann"), quality="high")
        while world.busy():
            world.settle(0, "succeeded", 4.0)
    costs = world.scheduler.state.costs
    assert abs(costs["synthetic/generate@1 a high"] - 4.0) < 0.1
    assert "synthetic/generate@1 a draft" not in costs


def test_a_bad_entry_is_refused_and_the_rest_applies() -> None:
    scheduler = Scheduler()
    bad = {"kind": "stage_ready", "at": 1, "ready": ready("j", "ann", lane="fast")}
    good = {"kind": "stage_ready", "at": 1, "ready": ready("k", "ann")}
    decisions = scheduler.apply(0, {"entries": [bad, good]})
    assert [type(decision).__name__ for decision in decisions] == ["Refuse"]
    assert scheduler.queued_tasks == 1
