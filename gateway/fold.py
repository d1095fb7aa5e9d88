"""How the events of one job become its state. Pure; any order and any repetition of the events gives the same.

An event's place is schemas.jobs.rank, packed into one integer; among equal ranks the record that stands first in
jobs.events wins.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import msgspec

from schemas.codec import Record
from schemas.jobs import TERMINAL_STATES, JobState, Transition, rank, state_after

_V = TypeVar("_V")

_MAX_STAGE_INDEX: Final = (1 << 12) - 1
_MAX_ATTEMPT: Final = (1 << 32) - 1


class StoredEvent(msgspec.Struct, frozen=True, kw_only=True):
    """What the gateway needs of a JobEvent. partition, offset: where it stands in jobs.events; the rest as there."""

    event_id: str
    user_id: str
    job_id: str
    workflow: str
    pipeline_id: str
    transition: str
    stage: str | None
    stage_index: int
    stage_count: int
    attempt: int
    at: int
    created_at: int
    wait_seconds: float | None
    run_seconds: float | None
    gpu_seconds: float | None
    error_class: str | None
    error_message: str | None
    artefacts: list[dict[str, Any]]
    lane: str | None
    tier: str | None
    priority: int | None
    due_at: int | None
    retry_of: str | None
    adjustments: list[str]
    partition: int
    offset: int
    rank: int

    @property
    def final(self) -> bool:
        """Whether a job's state cannot change after this event."""
        return self.rank >> 52 == 1


def packed_rank(transition: str, stage_index: int, attempt: int) -> int:
    """schemas.jobs.rank as one integer with the same order. Raises ValueError for what no writer of ours writes."""
    if not (0 <= stage_index <= _MAX_STAGE_INDEX and 0 <= attempt <= _MAX_ATTEMPT):
        raise ValueError(f"stage index {stage_index} or attempt {attempt} out of range")
    known = _RANKS.get(Transition(transition))
    if known is not None:
        by_stage, phase = known
        return (stage_index << 40) | (attempt << 8) | phase if by_stage else phase
    found = rank(Transition(transition), stage_index, attempt)
    return (found.final << 52) | (found.stage_index << 40) | (found.attempt << 8) | found.phase


def _table() -> dict[Transition, tuple[bool, int]]:
    """Transitions whose rank is a constant, or the stage, the attempt and a constant: whether the latter, and it."""
    found = {}
    for transition in Transition:
        first, other = rank(transition, 0, 0), rank(transition, 1, 1)
        constant = (first.final << 52) | first.phase
        if other == first:
            found[transition] = False, constant
        elif (other.stage_index, other.attempt, other.phase) == (1, 1, first.phase):
            found[transition] = True, constant
    return found


_RANKS: Final = _table()


def stored_event(record: Record, partition: int, offset: int) -> StoredEvent:
    """A decoded JobEvent with its place. Raises ValueError for a transition or place that we do not know."""
    return StoredEvent(
        event_id=record["event_id"],
        user_id=record["user_id"],
        job_id=record["job_id"],
        workflow=record["workflow"],
        pipeline_id=record["pipeline_id"],
        transition=record["transition"],
        stage=record["stage"],
        stage_index=record["stage_index"],
        stage_count=record["stage_count"],
        attempt=record["attempt"],
        at=record["at"],
        created_at=record["created_at"],
        wait_seconds=record["wait_seconds"],
        run_seconds=record["run_seconds"],
        gpu_seconds=record["gpu_seconds"],
        error_class=record["error_class"],
        error_message=record["error_message"],
        artefacts=record["artefacts"],
        lane=record["lane"],
        tier=record["tier"],
        priority=record["priority"],
        due_at=record["due_at"],
        retry_of=record["retry_of"],
        adjustments=record["adjustments"],
        partition=partition,
        offset=offset,
        rank=packed_rank(record["transition"], record["stage_index"], record["attempt"]),
    )


@dataclass(frozen=True, kw_only=True)
class StageView:
    """One stage of a job as its newest attempt left it; state: running, succeeded, failed or lost."""

    name: str
    state: str
    attempt: int
    wait_seconds: float | None
    run_seconds: float | None
    gpu_seconds: float | None


@dataclass(frozen=True, kw_only=True)
class JobFold:
    """A job after some of its events. Times in ms since 1970; artefacts by (stage, role), of succeeded attempts.

    held_until: when a held job is released as things stand; retry_at: when the next attempt of a failed stage may
    start; lane, tier, priority, retry_of: as the newest event that names them has them; adjustments: what was taken
    away under load, for people.
    """

    state: JobState
    stage: str | None = None
    attempt: int = 0
    held_until: int | None = None
    retry_at: int | None = None
    lane: str | None = None
    tier: str | None = None
    priority: int | None = None
    retry_of: str | None = None
    adjustments: Sequence[str] = ()
    queued_at: int | None = None
    started_at: int | None = None
    finished_at: int | None = None
    stages: Mapping[str, StageView] = field(default_factory=dict)
    artefacts: Mapping[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)
    error_class: str | None = None
    error_message: str | None = None

    @property
    def terminal(self) -> bool:
        """Whether the job has ended."""
        return self.state in TERMINAL_STATES

    @property
    def failed(self) -> bool:
        """Whether the end has a reason that the user should see: not a success, nor a cancel of the user's own."""
        return self.state in _FAILED or self.error_class is not None


def distinct(events: Iterable[StoredEvent]) -> list[StoredEvent]:
    """The events without repeats, in the order of jobs.events."""
    first: dict[str, StoredEvent] = {}
    for event in sorted(events, key=lambda e: e.offset):
        first.setdefault(event.event_id, event)
    return list(first.values())


def fold(events: Iterable[StoredEvent]) -> JobFold:
    """The state of the job that these events are about; `submitted` when there are none."""
    ordered = sorted(distinct(events), key=lambda e: (e.rank, -e.offset))
    if not ordered:
        return JobFold(state=JobState.SUBMITTED)
    winner = ordered[-1]
    state = state_after(Transition(winner.transition))
    at_stage = [e for e in ordered if not e.final and e.stage is not None]
    ended = state in TERMINAL_STATES
    # A cancel of the user's own has no class; one by a deadline or by a newer request names it.
    failed = ended and (state in _FAILED or (state is JobState.CANCELED and winner.error_class not in _USERS_OWN))
    return JobFold(
        state=state,
        stage=at_stage[-1].stage if at_stage else None,
        attempt=at_stage[-1].attempt if at_stage else 0,
        held_until=winner.due_at if state is JobState.HELD else None,
        retry_at=winner.due_at if winner.transition in _BETWEEN_ATTEMPTS else None,
        lane=_newest(e.lane for e in ordered),
        tier=_newest(e.tier for e in ordered),
        priority=_newest(e.priority for e in ordered),
        retry_of=_newest(e.retry_of for e in ordered),
        adjustments=_adjustments(ordered),
        queued_at=_first(ordered, Transition.QUEUED),
        started_at=_first(ordered, Transition.STARTED),
        finished_at=winner.at if ended else None,
        stages=_stages(at_stage),
        artefacts={
            (event.stage or "", artefact["role"]): artefact
            for event in ordered
            if event.transition == Transition.STAGE_SUCCEEDED
            for artefact in event.artefacts
        },
        error_class=winner.error_class if failed else None,
        error_message=winner.error_message if failed else None,
    )


_FAILED: Final = frozenset({JobState.FAILED, JobState.ABORTED, JobState.REJECTED})
_USERS_OWN: Final = (None, "", "canceled")
_BETWEEN_ATTEMPTS: Final = (Transition.STAGE_FAILED, Transition.STAGE_LOST)


def _newest(values: Iterable[_V | None]) -> _V | None:
    """The last value that is one."""
    found = None
    for value in values:
        found = found if value is None else value
    return found


def _adjustments(ordered: Sequence[StoredEvent]) -> tuple[str, ...]:
    """Everything that was taken away, each once, in the order of the stages."""
    return tuple(dict.fromkeys(text for event in ordered for text in event.adjustments))


def _first(events: Sequence[StoredEvent], transition: Transition) -> int | None:
    return min((e.at for e in events if e.transition == transition), default=None)


_STAGE_STATES: Final = {
    Transition.STARTED: "running",
    Transition.STAGE_SUCCEEDED: "succeeded",
    Transition.STAGE_FAILED: "failed",
    Transition.STAGE_LOST: "lost",
}


def _stages(at_stage: Sequence[StoredEvent]) -> dict[str, StageView]:
    """Each stage's newest attempt; `at_stage` in the order of ranks."""
    newest: dict[str, StageView] = {}
    for event in at_stage:
        state = _STAGE_STATES.get(Transition(event.transition))
        if state is None or event.stage is None:
            continue
        before = newest.get(event.stage)
        same = before if before is not None and before.attempt == event.attempt else None
        newest[event.stage] = StageView(
            name=event.stage,
            state=state,
            attempt=event.attempt,
            wait_seconds=_either(event.wait_seconds, same.wait_seconds if same else None),
            run_seconds=_either(event.run_seconds, same.run_seconds if same else None),
            gpu_seconds=_either(event.gpu_seconds, same.gpu_seconds if same else None),
        )
    return newest


def _either(new: float | None, old: float | None) -> float | None:
    return old if new is None else new
