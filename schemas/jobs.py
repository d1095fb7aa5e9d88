"""States of a job, the transitions between them, and how any set of events folds to one state; classes of errors."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class JobState(StrEnum):
    """What a job is doing, as a user sees it."""

    SUBMITTED = "submitted"  # on requests.*, admission has not answered yet
    HELD = "held"  # accepted, but not yet given to the scheduler: scheduled, debounced, over the rate limit
    QUEUED = "queued"  # accepted, no stage has started
    RUNNING = "running"  # a stage has started; between stages as well
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    ABORTED = "aborted"  # by a deadline or the queue's depth, before any stage started
    REJECTED = "rejected"  # by a limit, content or input: no stage ever runs


class Transition(StrEnum):
    """What happened to a job; the `transition` of a JobEvent."""

    HELD = "held"  # admission accepted the job and keeps it until due_at
    QUEUED = "queued"  # admission accepted or released the job
    STARTED = "started"  # a slot began an attempt of a stage
    STAGE_SUCCEEDED = "stage_succeeded"  # the attempt's artefacts are stored
    STAGE_FAILED = "stage_failed"  # the attempt failed; another may follow
    STAGE_LOST = "stage_lost"  # the slot died with it; another attempt may follow
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    ABORTED = "aborted"
    REJECTED = "rejected"


_LIVE: Final = frozenset({JobState.SUBMITTED, JobState.HELD, JobState.QUEUED, JobState.RUNNING})
_STARTED: Final = frozenset({JobState.QUEUED, JobState.RUNNING})

# transition -> (states it may happen in, state after it). Events may be read out of order between topics, so a
# reader folds them by `rank`; this table is what writers promise, and what the tests enumerate.
TRANSITIONS: Final[dict[Transition, tuple[frozenset[JobState], JobState]]] = {
    # A refusal leaves the Idempotency-Key free: a later request with the same key revives the same job id.
    Transition.HELD: (frozenset({JobState.SUBMITTED, JobState.REJECTED}), JobState.HELD),
    Transition.QUEUED: (frozenset({JobState.SUBMITTED, JobState.HELD, JobState.REJECTED}), JobState.QUEUED),
    Transition.STARTED: (_STARTED, JobState.RUNNING),
    Transition.STAGE_SUCCEEDED: (frozenset({JobState.RUNNING}), JobState.RUNNING),
    Transition.STAGE_FAILED: (frozenset({JobState.RUNNING}), JobState.RUNNING),
    Transition.STAGE_LOST: (_STARTED, JobState.RUNNING),  # dispatched, perhaps never started
    Transition.SUCCEEDED: (frozenset({JobState.RUNNING}), JobState.SUCCEEDED),
    Transition.FAILED: (_STARTED, JobState.FAILED),
    Transition.CANCELED: (_LIVE, JobState.CANCELED),
    Transition.ABORTED: (frozenset({JobState.HELD, JobState.QUEUED}), JobState.ABORTED),
    Transition.REJECTED: (frozenset({JobState.SUBMITTED, JobState.HELD}), JobState.REJECTED),
}

TERMINAL_TRANSITIONS: Final = frozenset(
    {Transition.SUCCEEDED, Transition.FAILED, Transition.CANCELED, Transition.ABORTED, Transition.REJECTED}
)
TERMINAL_STATES: Final = frozenset(
    {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELED, JobState.ABORTED, JobState.REJECTED}
)

# Before a job is queued, its answers alternate: refused (0), held (1), refused after the hold (2), held again (3) ...
_BEFORE_QUEUED: Final[dict[Transition, int]] = {Transition.REJECTED: 0, Transition.HELD: 1}
_MAX_BEFORE_QUEUED: Final = 99
_PHASE: Final[dict[Transition, int]] = {
    Transition.QUEUED: 100,
    Transition.STARTED: 101,
    Transition.STAGE_LOST: 102,
    Transition.STAGE_FAILED: 102,
    Transition.STAGE_SUCCEEDED: 103,
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
    """The rank of an event.

    `rejected` and `held` rank below `queued`, so a job id that was refused may be used again and goes on; all other
    ends are final. Their `attempt` counts the holds before: 0 in a refusal at once and in a first hold, 1 in a refusal
    of a job that had been held. Phases stay below 256, stage_index and attempt are taken as they are.
    """
    if transition in _BEFORE_QUEUED:
        phase = min(2 * attempt + _BEFORE_QUEUED[transition], _MAX_BEFORE_QUEUED)
        return Rank(final=0, stage_index=0, attempt=0, phase=phase)
    if transition in TERMINAL_TRANSITIONS:
        return Rank(final=1, stage_index=0, attempt=0, phase=0)
    if transition is Transition.QUEUED:
        return Rank(final=0, stage_index=0, attempt=0, phase=_PHASE[transition])
    return Rank(final=0, stage_index=stage_index, attempt=attempt, phase=_PHASE[transition])


def state_after(transition: Transition) -> JobState:
    """The state that a transition leads to."""
    return TRANSITIONS[transition][1]


class Retry(StrEnum):
    """How another attempt follows a failure of some class."""

    AT_ONCE = "at_once"  # at once after the first failure, then with growing delays
    BACKOFF = "backoff"  # exponential delays with full jitter: what was overloaded must not be met by a herd
    NEVER = "never"  # another attempt would end the same way


# Classes of errors. `lost` is the scheduler's own: the slot died with the task.
RETRY_BY_ERROR: Final[dict[str, Retry]] = {
    "transient": Retry.AT_ONCE,
    "crash": Retry.AT_ONCE,
    "timeout": Retry.AT_ONCE,
    "lost": Retry.AT_ONCE,
    "overload": Retry.BACKOFF,
    "rate_limited": Retry.BACKOFF,
    "oom": Retry.BACKOFF,
    "permanent": Retry.NEVER,
    "invalid": Retry.NEVER,
}
RETRYABLE_ERRORS: Final = frozenset(name for name, retry in RETRY_BY_ERROR.items() if retry is not Retry.NEVER)
PERMANENT_ERRORS: Final = frozenset(RETRY_BY_ERROR) - RETRYABLE_ERRORS

# Why a job ended that did not fail in a stage; the error_class of its canceled, aborted or rejected event.
SUPERSEDED: Final = "superseded"  # canceled: a newer request with the same debounce key took its place
START_DEADLINE: Final = "start_deadline"  # aborted: no stage had started by start_by
FINISH_DEADLINE: Final = "finish_deadline"  # aborted before its first stage, canceled after it: not done by finish_by
QUEUE_DEPTH: Final = "queue_depth"  # aborted: more tasks waited than the request allows


def retry_of_error(error_class: str) -> Retry:
    """How another attempt follows; a class that nobody knows is never tried again."""
    return RETRY_BY_ERROR.get(error_class, Retry.NEVER)


def is_final_failure(error_class: str, attempt: int, max_attempts: int) -> bool:
    """Whether a failed attempt ends its job. Worker and scheduler must agree: who ends the job writes its end."""
    return retry_of_error(error_class) is Retry.NEVER or attempt >= max_attempts
