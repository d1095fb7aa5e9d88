"""The ids of events: whoever tells the same thing tells it with the same id, and no two things share one."""

import itertools
import string
from typing import Any

import pytest

from schemas.codec import Codec
from schemas.events import dispatch_id, event_id, job_event
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
}


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


@pytest.mark.parametrize("transition", [Transition.SUCCEEDED, Transition.FAILED, Transition.CANCELED])
def test_a_job_has_one_end_of_each_kind_whichever_attempt_brought_it(transition: Transition) -> None:
    first, second = _event(transition, attempt=1), _event(transition, stage="texture", attempt=3)
    assert first["event_id"] == second["event_id"]


def test_ends_of_different_kinds_are_different_events() -> None:
    assert len({_event(t)["event_id"] for t in TERMINAL_TRANSITIONS}) == len(TERMINAL_TRANSITIONS)


def test_the_id_of_an_attempt() -> None:
    assert dispatch_id("job-1", "texture", 2) == "job-1/texture/2"
