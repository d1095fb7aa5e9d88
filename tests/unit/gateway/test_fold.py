"""How events become a job's state: the order of reading and repeats change nothing."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.fold import StoredEvent, fold, packed_rank
from schemas.jobs import TERMINAL_STATES, JobState, Rank, Transition, rank, state_after
from tests.unit.gateway.events import histories, stored, whole_job

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


def test_the_first_of_two_ends_wins() -> None:
    ends = [stored(Transition.CANCELED, 5), stored(Transition.SUCCEEDED, 6)]
    assert fold(ends).state is fold(reversed(ends)).state is JobState.CANCELED


def test_between_two_stages_a_job_runs() -> None:
    folded = fold(whole_job()[:5])
    assert folded.state is JobState.RUNNING
    assert folded.stages["generate"].state == "succeeded"
    lost = fold(whole_job()[:3])
    assert (lost.state, lost.stages["generate"].state) == (JobState.RUNNING, "lost")
