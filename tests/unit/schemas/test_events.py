"""The ids of events: whoever tells the same thing tells it with the same id, and no two things share one."""

import itertools
import string
from typing import Any

import pytest

from schemas.codec import Codec
from schemas.events import closed, dispatch_id, event_id, job_event, platform_event
from schemas.jobs import TERMINAL_TRANSITIONS, Transition
from tests.unit.schemas.examples import load

JOB: dict[str, Any] = load("job_requested", "full")
DETAILS = {
    "slot": 3,
    "epoch": 9,
    "pool": "gpu",
    "wait_seconds": 0.5,
    "error_class": "crash",
    "error_message": "It died.",
    "due_at": 5,
}
ORDER = {"lane": "batch", "tier": "pro", "priority": 1, "retry_of": "job-0", "adjustments": ["smaller"]}


def _event(transition: Transition, **changes: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = {"at": 1, "stage": "generate", "stage_count": 3, "attempt": 1}
    return job_event(JOB, transition, **arguments | changes)


@pytest.mark.parametrize("transition", Transition)
def test_an_event_fits_its_schema(transition: Transition) -> None:
    codec = Codec()
    event = _event(transition, **DETAILS)
    assert codec.decode_strict(codec.encode("job_event", event)) == event
    assert {key: event[key] for key in DETAILS} == DETAILS


@pytest.mark.parametrize("transition", Transition)
def test_a_repeat_has_the_same_id_whenever_and_wherever_it_is_told(transition: Transition) -> None:
    assert _event(transition)["event_id"] == _event(transition, at=99, slot=7, epoch=8)["event_id"]


def test_different_things_have_different_ids() -> None:
    ids = [
        event_id(job, stage, attempt, transition.value)
        for job, stage, attempt, transition in itertools.product(
            ("job-1", "job-2"), (None, "generate", "texture"), (0, 1, 2), Transition
        )
    ]
    assert len(set(ids)) == len(ids)
    assert all(len(found) == 32 and set(found) <= set(string.hexdigits.lower()) for found in ids)


def test_parts_of_an_id_cannot_run_into_each_other() -> None:
    assert event_id("a", "b", 1, "x") != event_id("ab", None, 1, "x")
    assert event_id("a", "b1", 1, "x") != event_id("a", "b", 11, "x")


@pytest.mark.parametrize("transition", sorted(TERMINAL_TRANSITIONS - {Transition.REJECTED}))
def test_a_job_has_one_end_of_each_kind_whichever_attempt_brought_it(transition: Transition) -> None:
    first, second = _event(transition, attempt=1), _event(transition, stage="texture", attempt=3)
    assert first["event_id"] == second["event_id"]


def test_ends_of_different_kinds_are_different_events() -> None:
    assert len({_event(t)["event_id"] for t in TERMINAL_TRANSITIONS}) == len(TERMINAL_TRANSITIONS)


def test_order_and_adjustments_come_from_the_job() -> None:
    event = job_event(JOB | ORDER, Transition.QUEUED, at=1, stage_count=3)
    assert {name: event[name] for name in ORDER} == ORDER


def test_what_the_caller_says_goes_before_what_the_job_says() -> None:
    event = job_event(JOB | ORDER, Transition.QUEUED, at=1, stage_count=3, tier="free", adjustments=())
    assert (event["tier"], event["adjustments"], event["lane"]) == ("free", [], "batch")


def test_a_job_may_leave_out_what_follows_from_its_pipeline_or_is_open() -> None:
    bare = {name: JOB[name] for name in ("job_id", "user_id", "pipeline_id", "created_at")}
    event = job_event(bare, Transition.STARTED, at=1, stage="generate", stage_count=3, attempt=1)
    assert event["workflow"] == JOB["workflow"]
    assert [event[name] for name in (*ORDER, "due_at", "traceparent")] == [None, None, None, None, [], None, None]
    with pytest.raises(KeyError, match="no-such"):
        job_event(bare | {"pipeline_id": "no-such"}, Transition.STARTED, at=1, stage_count=3)


def test_ended_jobs_of_a_user() -> None:
    codec, record = Codec(), closed("local", ("job-1", "job-2"), at=7)
    assert codec.decode_strict(codec.encode("user_closed", record)) == record
    assert record["job_ids"] == ["job-1", "job-2"]


def test_a_platform_event_tells_its_details_as_text() -> None:
    codec = Codec()
    record = platform_event("load_level", domain="main", subject="3", detail={"from": 2, "wait": 1.5}, at=7)
    assert codec.decode_strict(codec.encode("platform_event", record)) == record
    assert record["detail"] == {"from": "2", "wait": "1.5"}


def test_the_id_of_an_attempt() -> None:
    assert dispatch_id("job-1", "texture", 2) == "job-1/texture/2"
