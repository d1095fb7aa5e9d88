"""How events become a job's state: the order of reading and repeats change nothing."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.fold import StoredEvent, fold, packed_rank, stored_event
from schemas.jobs import TERMINAL_STATES, JobState, Rank, Transition, rank, state_after
from tests.unit.gateway.events import CODEC, filed, histories, record, stored, whole_job

places = st.tuples(st.sampled_from(Transition), st.integers(0, 4095), st.integers(0, 2**32 - 1))


@settings(deadline=None)
@given(places, places)
def test_packed_ranks_have_the_order_of_schemas_jobs(
    a: tuple[Transition, int, int], b: tuple[Transition, int, int]
) -> None:
    assert (packed_rank(*a) < packed_rank(*b)) == (rank(*a) < rank(*b))
    assert (packed_rank(*a) == packed_rank(*b)) == (rank(*a) == rank(*b))
    assert 0 <= packed_rank(*a) < 2**63


@pytest.mark.parametrize(("stage_index", "attempt"), [(-1, 1), (4096, 1), (0, -1), (0, 2**32)])
def test_places_that_no_writer_of_ours_gives_are_refused(stage_index: int, attempt: int) -> None:
    with pytest.raises(ValueError, match="out of range"):
        packed_rank("started", stage_index, attempt)


@settings(deadline=None)
@given(histories(), st.data())
def test_any_order_and_repetition_gives_the_same(history: list[StoredEvent], data: st.DataObject) -> None:
    repeated = history + data.draw(st.lists(st.sampled_from(history), max_size=5) if history else st.just([]))
    assert fold(data.draw(st.permutations(repeated))) == fold(history)


@settings(deadline=None)
@given(histories())
def test_the_state_is_that_of_the_first_final_or_else_the_greatest_event(history: list[StoredEvent]) -> None:
    """The promise of schemas.jobs, told a second time in the plainest way: read in order, keep what ranks higher."""
    state, reached = JobState.SUBMITTED, Rank(final=-1, stage_index=0, attempt=0, phase=0)
    for event in history:
        transition = Transition(event.transition)
        place = rank(transition, event.stage_index, event.attempt)
        if place > reached:
            state, reached = state_after(transition), place
    assert fold(history).state is state
    assert (fold(history).finished_at is not None) == (state in TERMINAL_STATES)


def test_a_whole_job() -> None:
    folded = fold(whole_job())
    assert folded.state is JobState.SUCCEEDED
    assert (folded.stage, folded.attempt) == ("texture", 1)
    assert (folded.queued_at, folded.started_at, folded.finished_at) == (2_000, 2_001, 2_009)
    assert [(s.name, s.state, s.attempt) for s in folded.stages.values()] == [
        ("generate", "succeeded", 2),
        ("retopology", "succeeded", 1),
        ("texture", "succeeded", 1),
    ]
    assert folded.artefacts["generate", "mesh"]["bytes"] == 4


def test_a_refusal_leaves_the_job_id_to_a_later_request() -> None:
    refused = [stored(Transition.REJECTED, 0)]
    assert fold(refused).state is JobState.REJECTED
    assert fold(refused).error_class == "transient"
    assert fold([*refused, stored(Transition.QUEUED, 1)]).state is JobState.QUEUED


def event(transition: Transition, offset: int, **more: Any) -> StoredEvent:
    return stored_event(CODEC.decode(filed(record(transition, offset, **more), offset).value), 0, offset)


def test_a_held_job_says_until_when_and_then_goes_on() -> None:
    held = event(Transition.HELD, 0, due_at=9_000, lane="batch", tier="pro", priority=2)
    folded = fold([held])
    assert (folded.state, folded.held_until, folded.terminal) == (JobState.HELD, 9_000, False)
    assert (folded.lane, folded.tier, folded.priority) == ("batch", "pro", 2)
    queued = fold([event(Transition.QUEUED, 1, lane="batch"), held])
    assert (queued.state, queued.held_until, queued.priority) == (JobState.QUEUED, None, 2)


@pytest.mark.parametrize(
    ("transition", "error_class", "shown"),
    [
        (Transition.ABORTED, "start_deadline", True),
        (Transition.REJECTED, "load", True),
        (Transition.FAILED, "oom", True),
        (Transition.CANCELED, "superseded", True),
        (Transition.CANCELED, "finish_deadline", True),
        (Transition.CANCELED, None, False),
    ],
)
def test_ends_with_a_reason_tell_it(transition: Transition, error_class: str | None, shown: bool) -> None:
    # The attempt counts the holds before a refusal.
    end = event(transition, 1, attempt=1, error_class=error_class, error_message="why")
    folded = fold([stored(Transition.HELD, 0), end])
    assert folded.terminal
    assert folded.failed is shown
    assert folded.error_class == (error_class if shown else None)


def test_between_two_attempts_a_job_says_when_the_next_may_start() -> None:
    failed = event(Transition.STAGE_FAILED, 2, stage_index=0, attempt=1, due_at=7_000)
    assert fold([*whole_job()[:2], failed]).retry_at == 7_000
    assert fold(whole_job()[:2]).retry_at is None


def test_what_was_taken_away_is_told_once() -> None:
    first = event(Transition.STARTED, 1, stage_index=0, attempt=1, adjustments=["draft instead of high"])
    second = event(Transition.STARTED, 2, stage_index=2, attempt=1, adjustments=["draft instead of high", "2048 px"])
    assert fold([second, first]).adjustments == ("draft instead of high", "2048 px")


def test_the_first_of_two_ends_wins() -> None:
    ends = [stored(Transition.CANCELED, 5), stored(Transition.SUCCEEDED, 6)]
    assert fold(ends).state is fold(reversed(ends)).state is JobState.CANCELED


def test_between_two_stages_a_job_runs() -> None:
    folded = fold(whole_job()[:5])
    assert folded.state is JobState.RUNNING
    assert folded.stages["generate"].state == "succeeded"
    lost = fold(whole_job()[:3])
    assert (lost.state, lost.stages["generate"].state) == (JobState.RUNNING, "lost")
