"""States of a job, the transitions between them, and how any set of events folds to one state.

`held` and `aborted` are names reserved for scheduled jobs and start deadlines; no code path leads to them yet, so they
do not stand here.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class JobState(StrEnum):
    """What a job is doing, as a user sees it."""

    SUBMITTED = "submitted"  # on requests.*, admission has not answered yet
    QUEUED = "queued"  # accepted, no stage has started
    RUNNING = "running"  # a stage has started; between stages as well
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    REJECTED = "rejected"  # by a limit, content or input: no stage ever runs


class Transition(StrEnum):
    """What happened to a job; the `transition` of a JobEvent."""

    QUEUED = "queued"  # admission accepted the job
    STARTED = "started"  # a slot began an attempt of a stage
    STAGE_SUCCEEDED = "stage_succeeded"  # the attempt's artefacts are stored
    STAGE_FAILED = "stage_failed"  # the attempt failed; another may follow
    STAGE_LOST = "stage_lost"  # the slot died with it; another attempt may follow
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    REJECTED = "rejected"


_LIVE: Final = frozenset({JobState.SUBMITTED, JobState.QUEUED, JobState.RUNNING})
_STARTED: Final = frozenset({JobState.QUEUED, JobState.RUNNING})

# transition -> (states it may happen in, state after it). Events may be read out of order between topics, so a
# reader folds them by `rank`; this table is what writers promise, and what the tests enumerate.
TRANSITIONS: Final[dict[Transition, tuple[frozenset[JobState], JobState]]] = {
    # A refusal leaves the Idempotency-Key free: a later request with the same key revives the same job id.
    Transition.QUEUED: (frozenset({JobState.SUBMITTED, JobState.REJECTED}), JobState.QUEUED),
    Transition.STARTED: (_STARTED, JobState.RUNNING),
    Transition.STAGE_SUCCEEDED: (frozenset({JobState.RUNNING}), JobState.RUNNING),
    Transition.STAGE_FAILED: (frozenset({JobState.RUNNING}), JobState.RUNNING),
    Transition.STAGE_LOST: (_STARTED, JobState.RUNNING),  # dispatched, perhaps never started
    Transition.SUCCEEDED: (frozenset({JobState.RUNNING}), JobState.SUCCEEDED),
    Transition.FAILED: (_STARTED, JobState.FAILED),
    Transition.CANCELED: (_LIVE, JobState.CANCELED),
    Transition.REJECTED: (frozenset({JobState.SUBMITTED}), JobState.REJECTED),
}

TERMINAL_TRANSITIONS: Final = frozenset(
    {Transition.SUCCEEDED, Transition.FAILED, Transition.CANCELED, Transition.REJECTED}
)
TERMINAL_STATES: Final = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELED, JobState.REJECTED})

_PHASE: Final[dict[Transition, int]] = {
    Transition.REJECTED: 0,
    Transition.QUEUED: 1,
    Transition.STARTED: 2,
    Transition.STAGE_LOST: 3,
    Transition.STAGE_FAILED: 3,
    Transition.STAGE_SUCCEEDED: 4,
    Transition.SUCCEEDED: 9,
    Transition.FAILED: 9,
    Transition.CANCELED: 9,
}


@dataclass(frozen=True, kw_only=True, order=True)
class Rank:
    """Place of an event in a job's life; the greatest one seen is the job's state.

    The order is total over non-final events and independent of arrival, so repeats and disorder do not matter. Among
    final events the one that stands first in jobs.events wins: readers keep what they have when ranks are equal.
    """

    final: int
    stage_index: int
    attempt: int
    phase: int


def rank(transition: Transition, stage_index: int, attempt: int) -> Rank:
    """The rank of an event. `rejected` ranks below `queued`, so a revived job id goes on; all other ends are final."""
    final = transition in TERMINAL_TRANSITIONS and transition is not Transition.REJECTED
    if final:
        return Rank(final=1, stage_index=0, attempt=0, phase=0)
    if transition in (Transition.REJECTED, Transition.QUEUED):
        return Rank(final=0, stage_index=0, attempt=0, phase=_PHASE[transition])
    return Rank(final=0, stage_index=stage_index, attempt=attempt, phase=_PHASE[transition])


def state_after(transition: Transition) -> JobState:
    """The state that a transition leads to."""
    return TRANSITIONS[transition][1]


# Classes of errors, and whether another attempt may help. `lost` is the scheduler's own: the slot died with the task.
RETRYABLE_ERRORS: Final = frozenset({"transient", "crash", "oom", "timeout", "lost"})
PERMANENT_ERRORS: Final = frozenset({"permanent", "invalid"})


def is_final_failure(error_class: str, attempt: int, max_attempts: int) -> bool:
    """Whether a failed attempt ends its job. Worker and scheduler must agree: who ends the job writes its end."""
    return error_class not in RETRYABLE_ERRORS or attempt >= max_attempts
