"""Retry delays, deadlines, the queue's depth, and clocks."""

import pytest

from streams.policy.decisions import Platform, StopWork
from streams.policy.scheduler import WRONG_CLOCK_MS
from tests.support.world import World, ready


def test_a_first_failure_is_tried_again_at_once_and_a_second_later() -> None:
    world = World()
    world.join(0)
    world.submit(("j", "ann"))
    world.settle(0, "failed", 1.0, "transient")
    assert world.item()["attempt"] == 2
    world.settle(0, "failed", 1.0, "transient")
    assert world.busy() == []
    assert world.scheduler.next_due_ms() == world.now + 1_000
    world.wait(1)
    assert (world.item()["stage"], world.item()["attempt"]) == ("generate", 3)
    world.settle(0, "failed", 1.0, "transient")
    assert world.ends == {"j": 1}


def test_a_retry_waits_as_long_as_the_one_who_refused_asked() -> None:
    world = World()
    world.join(0)
    world.submit(("j", "ann"))
    world.settle(0, "failed", 0.0, "rate_limited", retry_after_seconds=20.0)
    assert world.scheduler.next_due_ms() == world.now + 20_000


def test_the_place_is_used_while_a_retry_waits() -> None:
    world = World()
    world.join(0)
    world.submit(("j", "ann"), ("k", "bob"))
    world.settle(0, "failed", 0.0, "overload", retry_after_seconds=20.0)
    assert world.item()["job_id"] == "k"


@pytest.mark.parametrize("error_class", ["permanent", "invalid"])
def test_some_failures_are_never_tried_again(error_class: str) -> None:
    world = World()
    world.join(0)
    world.submit(("j", "ann"))
    world.settle(0, "failed", 1.0, error_class)
    assert world.ends == world.closed == {"j": 1}


def test_a_job_that_did_not_start_in_time_is_aborted() -> None:
    world = World()
    world.submit(("j", "ann"), start_by=world.now + 5_000)
    world.wait(4)
    assert world.told == []
    world.wait(1)
    assert world.transitions() == [("aborted", "generate", 0)]
    assert world.told[0]["error_class"] == "start_deadline"
    assert world.closed == {"j": 1}


def test_a_job_that_started_in_time_is_let_go_on() -> None:
    world = World()
    world.join(0)
    world.submit(("j", "ann"), start_by=world.now + 5_000)
    world.wait(60)
    world.settle(0)
    assert world.item()["stage"] == "retopology"
    assert world.told == []


def test_a_deadline_that_has_passed_already_starts_nothing() -> None:
    world = World()
    world.join(0)
    world.submit(("j", "ann"), finish_by=world.now)
    assert world.busy() == []
    assert world.told[0]["error_class"] == "finish_deadline"
    assert world.told[0]["transition"] == "aborted"


def test_a_running_job_is_stopped_at_its_deadline() -> None:
    world = World()
    world.join(0)
    world.submit(("j", "ann"), finish_by=world.now + 5_000)
    decisions = world.wait(6)
    assert [d for d in decisions if isinstance(d, StopWork)] == [
        StopWork(slot=0, epoch=1, job_id="j", stage="generate", attempt=1)
    ]
    world.settle(0, "canceled")
    assert world.ends == world.closed == {"j": 1}


def test_a_job_between_stages_is_canceled_at_its_deadline() -> None:
    world = World()
    world.join(0, serves=["synthetic/generate"])
    world.submit(("j", "ann"), finish_by=world.now + 5_000)
    world.settle(0)
    world.wait(6)
    assert world.transitions() == [("canceled", "retopology", 0)]
    assert world.told[0]["error_class"] == "finish_deadline"


def test_a_retry_that_waits_is_canceled_at_its_deadline() -> None:
    world = World()
    world.join(0)
    world.submit(("j", "ann"), finish_by=world.now + 5_000)
    world.settle(0, "failed", 0.0, "overload", retry_after_seconds=20.0)
    world.wait(6)
    assert world.transitions() == [("canceled", "generate", 1)]
    world.wait(60)
    assert world.busy() == []


def test_a_queue_that_is_too_deep_is_told_at_once() -> None:
    world = World()
    world.join(0)
    world.submit(("a", "ann"), max_queue_depth=0)  # starts at once, so nothing waits
    world.submit(("b", "ann"), max_queue_depth=0)
    entries = [{"kind": "stage_ready", "ready": ready(job, "bob", max_queue_depth=1)} for job in ("c", "d", "e")]
    world.append(*entries)
    assert [event["job_id"] for event in world.told] == ["e", "d"]
    assert {event["transition"] for event in world.told} == {"aborted"}
    assert {event["error_class"] for event in world.told} == {"queue_depth"}


def test_a_workers_wrong_clock_does_not_move_time() -> None:
    world = World()
    world.wait(1)
    world.join(0)
    world.submit(("j", "ann"), finish_by=world.now + 60_000)
    late = {
        "kind": "stage_settled",
        "settled": world.settlement(0, world.slots[0].items.pop("j")),
        "at": world.now + 10**9,
    }
    decisions = world.append(late)
    (told,) = [decision.event for decision in decisions if isinstance(decision, Platform)]
    assert (told["kind"], told["subject"]) == ("clock", "slot 0")
    assert world.scheduler.state.jobs["j"].stage == "retopology"
    assert world.scheduler.state.now < world.now
    again = {"kind": "slot_joined", "at": world.now + 10**9, "slot": world.slots[0].change}
    assert world.append(again) == []


def test_a_clock_that_is_a_little_ahead_counts() -> None:
    world = World()
    world.wait(1)
    world.join(0)
    world.submit(("j", "ann"))
    at = world.now + WRONG_CLOCK_MS
    world.append({"kind": "stage_settled", "settled": world.settlement(0, world.slots[0].items.pop("j")), "at": at})
    assert world.scheduler.state.now == at


def test_time_goes_on_with_entries_of_the_platform_alone() -> None:
    world = World()
    world.wait(1)
    world.now += 3_600_000  # the scheduler was away: no ticks
    world.submit(("j", "ann"))
    assert world.scheduler.state.now == world.now
