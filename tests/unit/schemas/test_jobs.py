"""The table of transitions, enumerated; and the fold of events to a state, which no order and no repeat may change."""

import itertools
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.jobs import (
    PERMANENT_ERRORS,
    RETRY_BY_ERROR,
    RETRYABLE_ERRORS,
    TERMINAL_STATES,
    TERMINAL_TRANSITIONS,
    TRANSITIONS,
    JobState,
    Rank,
    Retry,
    Transition,
    is_final_failure,
    rank,
    retry_of_error,
    state_after,
)

MAX_STAGES = 3
MAX_ATTEMPTS = 3
ENDS = TERMINAL_TRANSITIONS - {Transition.REJECTED}

each_transition = pytest.mark.parametrize("transition", Transition)

Event = tuple[Transition, int, int]


def fold(events: Iterable[Event]) -> JobState:
    """How every reader computes a job's state: the greatest rank, the first of equals."""
    state, best = JobState.SUBMITTED, None
    for transition, stage_index, attempt in events:
        found = rank(transition, stage_index, attempt)
        if best is None or found > best:
            state, best = state_after(transition), found
    return state


def reachable_states() -> set[JobState]:
    """All states that the table's transitions lead to from `submitted`."""
    seen = {JobState.SUBMITTED}
    while True:
        more = {after for before, after in TRANSITIONS.values() if before & seen} - seen
        if not more:
            return seen
        seen |= more


def test_the_table_names_every_transition_once() -> None:
    assert set(TRANSITIONS) == set(Transition)


def test_every_state_is_reachable() -> None:
    assert reachable_states() == set(JobState)


@each_transition
def test_a_transition_may_happen(transition: Transition) -> None:
    before, _ = TRANSITIONS[transition]
    assert before
    assert before <= reachable_states()


@each_transition
def test_a_transition_leads_where_the_table_says(transition: Transition) -> None:
    assert state_after(transition) == TRANSITIONS[transition][1]
    assert (state_after(transition) in TERMINAL_STATES) == (transition in TERMINAL_TRANSITIONS)


@pytest.mark.parametrize("state", sorted(TERMINAL_STATES))
def test_no_transition_leaves_a_final_state_but_the_revival_of_a_refusal(state: JobState) -> None:
    leaving = {transition for transition, (before, _) in TRANSITIONS.items() if state in before}
    assert leaving == ({Transition.HELD, Transition.QUEUED} if state is JobState.REJECTED else set())


@pytest.mark.parametrize("state", sorted(set(JobState) - TERMINAL_STATES))
def test_every_live_state_can_end(state: JobState) -> None:
    ends = {transition for transition in TERMINAL_TRANSITIONS if state in TRANSITIONS[transition][0]}
    assert ends
    assert Transition.CANCELED in ends


def test_only_what_has_not_started_is_aborted() -> None:
    assert TRANSITIONS[Transition.ABORTED] == (frozenset({JobState.HELD, JobState.QUEUED}), JobState.ABORTED)


def test_a_held_job_goes_to_the_queue_or_ends() -> None:
    ways = {t for t, (before, _) in TRANSITIONS.items() if JobState.HELD in before}
    assert ways == {Transition.QUEUED, Transition.CANCELED, Transition.ABORTED, Transition.REJECTED}


def test_only_the_user_ends_a_job_that_admission_has_not_answered() -> None:
    ends = {t for t in TERMINAL_TRANSITIONS if JobState.SUBMITTED in TRANSITIONS[t][0]}
    assert ends == {Transition.REJECTED, Transition.CANCELED}


@each_transition
@pytest.mark.parametrize("stage_index", range(MAX_STAGES))
@pytest.mark.parametrize("attempt", range(MAX_ATTEMPTS + 1))
def test_a_final_transition_outranks_all_others(transition: Transition, stage_index: int, attempt: int) -> None:
    found = rank(transition, stage_index, attempt)
    for end in ENDS:
        if transition in ENDS:
            assert found == rank(end, MAX_STAGES, MAX_ATTEMPTS)
        else:
            assert found < rank(end, 0, 0)


def test_a_jobs_way_rises_in_rank() -> None:
    way = [
        rank(Transition.REJECTED, 0, 0),
        rank(Transition.HELD, 0, 0),
        rank(Transition.REJECTED, 0, 1),
        rank(Transition.HELD, 0, 1),
        rank(Transition.QUEUED, 0, 0),
    ]
    for stage, attempt in itertools.product(range(MAX_STAGES), range(1, MAX_ATTEMPTS + 1)):
        way.append(rank(Transition.STARTED, stage, attempt))
        way.append(rank(Transition.STAGE_FAILED, stage, attempt))
        way.append(rank(Transition.STAGE_SUCCEEDED, stage, attempt))
    way.append(rank(Transition.SUCCEEDED, MAX_STAGES - 1, 1))
    assert way == sorted(set(way))


@pytest.mark.parametrize("transition", [Transition.REJECTED, Transition.HELD])
def test_what_comes_before_the_queue_ranks_below_it_whatever_it_names(transition: Transition) -> None:
    for stage, attempt in itertools.product(range(MAX_STAGES), (0, 1, 2, 49, 50, 10_000)):
        assert rank(transition, stage, attempt) < rank(Transition.QUEUED, 0, 0)
        assert rank(Transition.QUEUED, stage, attempt) == rank(Transition.QUEUED, 0, 0)


def test_a_refusal_after_a_hold_is_seen_and_one_before_it_is_not() -> None:
    assert fold([(Transition.REJECTED, 0, 0), (Transition.HELD, 0, 0)]) is JobState.HELD
    assert fold([(Transition.HELD, 0, 0), (Transition.REJECTED, 0, 1)]) is JobState.REJECTED
    assert fold([(Transition.REJECTED, 0, 1), (Transition.HELD, 0, 0)]) is JobState.REJECTED


@each_transition
def test_a_phase_fits_into_a_byte(transition: Transition) -> None:
    assert 0 <= rank(transition, MAX_STAGES, 10_000).phase < 256


def test_failure_and_loss_of_one_attempt_tell_the_same() -> None:
    assert rank(Transition.STAGE_LOST, 1, 2) == rank(Transition.STAGE_FAILED, 1, 2)
    assert state_after(Transition.STAGE_LOST) == state_after(Transition.STAGE_FAILED)


events_of_a_job = st.lists(
    st.tuples(st.sampled_from(sorted(set(Transition) - ENDS)), st.integers(0, MAX_STAGES - 1), st.integers(0, 3)),
    max_size=12,
)


@settings(deadline=None)
@given(events=events_of_a_job, end=st.none() | st.sampled_from(sorted(ENDS)), data=st.data())
def test_neither_order_nor_repeats_change_the_state(
    events: list[Event], end: Transition | None, data: st.DataObject
) -> None:
    history: list[Event] = [*events, *([(end, MAX_STAGES - 1, 1)] if end else [])]
    repeated = history + data.draw(st.lists(st.sampled_from(history), max_size=6) if history else st.just([]))
    shuffled: Sequence[Event] = data.draw(st.permutations(repeated))
    assert fold(shuffled) == fold(history)
    if end is not None:
        assert fold(shuffled) == state_after(end)


@settings(deadline=None)
@given(before=events_of_a_job, after=events_of_a_job, ends=st.permutations(sorted(ENDS)))
def test_the_first_end_wins(before: list[Event], after: list[Event], ends: list[Transition]) -> None:
    first, *later = ends
    history: list[Event] = [*before, (first, 0, 1), *after, *[(end, 2, 3) for end in later]]
    assert fold(history) == state_after(first)


@settings(deadline=None)
@given(data=st.data())
def test_the_fold_agrees_with_the_table_along_every_legal_way(data: st.DataObject) -> None:
    state, stage, attempt, holds = JobState.SUBMITTED, 0, 1, 0
    history: list[Event] = []
    for _ in range(data.draw(st.integers(0, 20))):
        allowed = sorted(t for t, (before, _) in TRANSITIONS.items() if state in before)
        if not allowed:
            break
        transition = data.draw(st.sampled_from(allowed))
        if transition is Transition.STARTED and history and history[-1][0] is Transition.STAGE_SUCCEEDED:
            stage, attempt = stage + 1, 1
        elif transition is Transition.STARTED and history and history[-1][0] is not Transition.QUEUED:
            attempt += 1
        before_queue = transition in (Transition.HELD, Transition.REJECTED)
        history.append((transition, 0, holds) if before_queue else (transition, stage, attempt))
        holds += transition is Transition.HELD
        state = state_after(transition)
        assert fold(history) == state


def test_ranks_are_compared_by_end_stage_attempt_phase() -> None:
    assert Rank(final=0, stage_index=2, attempt=1, phase=1) > Rank(final=0, stage_index=1, attempt=3, phase=4)
    assert Rank(final=1, stage_index=0, attempt=0, phase=0) > Rank(final=0, stage_index=9, attempt=9, phase=9)


def test_error_classes_are_either_retryable_or_permanent() -> None:
    assert not RETRYABLE_ERRORS & PERMANENT_ERRORS
    assert set(RETRY_BY_ERROR) == RETRYABLE_ERRORS | PERMANENT_ERRORS


def test_how_each_class_of_errors_is_tried_again() -> None:
    classes = {
        retry: {name for name, found in RETRY_BY_ERROR.items() if found is retry} for retry in sorted(set(Retry))
    }
    assert classes == {
        Retry.AT_ONCE: {"transient", "crash", "timeout", "lost"},
        Retry.BACKOFF: {"overload", "rate_limited", "oom"},
        Retry.NEVER: {"permanent", "invalid"},
    }
    assert retry_of_error("a class that nobody knows") is Retry.NEVER


@pytest.mark.parametrize("error_class", sorted(RETRYABLE_ERRORS))
def test_a_retryable_error_ends_the_job_at_the_last_attempt(error_class: str) -> None:
    assert [is_final_failure(error_class, attempt, 3) for attempt in (1, 2, 3, 4)] == [False, False, True, True]


@pytest.mark.parametrize("error_class", [*sorted(PERMANENT_ERRORS), "a class that nobody knows"])
def test_another_error_ends_the_job_at_once(error_class: str) -> None:
    assert is_final_failure(error_class, 1, 3)
