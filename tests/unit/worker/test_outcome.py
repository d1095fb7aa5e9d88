"""Which records an ended attempt leads to, over every way it can end."""

from itertools import product

import pytest

from inference.outcome import (
    Canceled,
    Ending,
    Failed,
    Finished,
    SlotIdentity,
    SlotOffer,
    Succeeded,
    job_events,
    settled_entry,
    slot_entry,
    started_event,
)
from inference.work import Artefact
from schemas.codec import Codec
from schemas.events import event_id
from schemas.jobs import (
    PERMANENT_ERRORS,
    RETRYABLE_ERRORS,
    TERMINAL_STATES,
    TERMINAL_TRANSITIONS,
    TRANSITIONS,
    JobState,
    Transition,
    rank,
)
from tests.unit.worker.items import item

WHO = SlotIdentity(slot=4, epoch=99, pool="fast", resource_class="gpu")
OFFER = SlotOffer(serves=("synthetic/generate",), versions=("synthetic@2",), capacity=8)
MADE = Artefact(role="result", uri="file:///o/x", sha256="ab", bytes=3, media_type="application/json")
WORKER_ERRORS = sorted((RETRYABLE_ERRORS | PERMANENT_ERRORS) - {"lost"})
ENDINGS: list[Ending] = [
    Succeeded(artefacts=(MADE,)),
    Canceled(),
    *(Failed(error_class=name, message="m") for name in WORKER_ERRORS),
]


def expected(ending: Ending, stage: str, attempt: int) -> list[str]:
    """The contract, spelled out."""
    if isinstance(ending, Succeeded):
        return ["stage_succeeded", "succeeded"] if stage == "texture" else ["stage_succeeded"]
    if isinstance(ending, Canceled):
        return ["canceled"]
    over = ending.error_class in ("permanent", "invalid") or attempt == 3
    return ["stage_failed", "failed"] if over else ["stage_failed"]


@pytest.mark.parametrize(
    ("ending", "stage", "attempt"), list(product(ENDINGS, ("generate", "retopology", "texture"), (1, 2, 3)))
)
def test_every_end_is_told_as_the_contract_says(ending: Ending, stage: str, attempt: int) -> None:
    done = Finished(item=item(stage=stage, attempt=attempt), started_at=2_500, ended_at=4_000, ending=ending)
    events = job_events(done, WHO)
    assert [event["transition"] for event in events] == expected(ending, stage, attempt)

    state = JobState.RUNNING
    for event in events:
        transition = Transition(event["transition"])
        allowed, after = TRANSITIONS[transition]
        assert state in allowed
        state = after
        assert (event["slot"], event["epoch"], event["pool"], event["resource_class"]) == (4, 99, "fast", "gpu")
        assert (event["wait_seconds"], event["run_seconds"], event["gpu_seconds"]) == (0.5, 1.5, 1.5)
        Codec().encode("job_event", event)
    assert sum(Transition(event["transition"]) in TERMINAL_TRANSITIONS for event in events) <= 1
    assert (state in TERMINAL_STATES) == (len(events) == 2 or ending == Canceled())

    entry = settled_entry(done, WHO)
    settled = entry["settled"]
    assert entry["kind"] == "stage_settled"
    assert settled["outcome"] == type(ending).__name__.lower()
    assert settled["error_class"] == (ending.error_class if isinstance(ending, Failed) else None)
    assert settled["artefacts"] == ([MADE.record()] if isinstance(ending, Succeeded) else [])
    assert settled["gpu_seconds"] == 1.5
    Codec().encode("inbox_batch", {"entries": [entry]})


def test_artefacts_stand_in_the_stages_event_alone() -> None:
    done = Finished(item=item(stage="texture"), started_at=0, ended_at=1, ending=Succeeded(artefacts=(MADE,)))
    assert [event["artefacts"] for event in job_events(done, WHO)] == [[MADE.record()], []]


def test_an_error_is_told_in_both_events() -> None:
    ending = Failed(error_class="permanent", message="no such colour")
    for event in job_events(Finished(item=item(), started_at=0, ended_at=1, ending=ending), WHO):
        assert (event["error_class"], event["error_message"]) == ("permanent", "no such colour")


def test_a_message_without_end_is_cut() -> None:
    ending = Failed(error_class="permanent", message="x" * 300_000)
    for event in job_events(Finished(item=item(), started_at=0, ended_at=1, ending=ending), WHO):
        assert len(event["error_message"]) == 1000
        Codec().encode("job_event", event)


def test_an_item_canceled_before_it_began_has_no_times() -> None:
    done = Finished(item=item(), started_at=None, ended_at=9, ending=Canceled())
    (event,) = job_events(done, WHO)
    assert (event["wait_seconds"], event["run_seconds"], event["gpu_seconds"]) == (None, None, None)
    assert settled_entry(done, WHO)["settled"]["gpu_seconds"] == 0


def test_the_end_of_a_job_has_one_id_whichever_attempt_brings_it() -> None:
    ids = set()
    for attempt in (1, 3):
        ending = Failed(error_class="permanent", message="m")
        events = job_events(Finished(item=item(attempt=attempt), started_at=0, ended_at=1, ending=ending), WHO)
        ids.add(events[-1]["event_id"])
    assert ids == {event_id("job-1", None, 0, "failed")}


def test_a_start_ranks_before_its_end() -> None:
    started = started_event(item(), WHO, at=2_500)
    assert (started["transition"], started["wait_seconds"]) == ("started", 0.5)
    assert rank(Transition.STARTED, 0, 1) < rank(Transition.STAGE_FAILED, 0, 1) < rank(Transition.STARTED, 0, 2)


def test_clocks_that_disagree_give_no_negative_times() -> None:
    done = Finished(item=item(ready_at=5_000), started_at=4_000, ended_at=3_000, ending=Canceled())
    (event,) = job_events(done, WHO)
    assert (event["wait_seconds"], event["run_seconds"]) == (0, 0)


@pytest.mark.parametrize("kind", ["slot_joined", "slot_lost"])
def test_slot_entries_fit_their_schema(kind: str) -> None:
    entry = slot_entry(kind, WHO, OFFER, at=1)
    assert Codec().decode(Codec().encode("inbox_batch", {"entries": [entry]}))["entries"][0]["slot"] == entry["slot"]
