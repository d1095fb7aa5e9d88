"""How the events of one job become its state. Pure; any order and any repetition of the events gives the same.

An event's place is schemas.jobs.rank, packed into one integer so that SQLite can compare it; among equal ranks the
record that stands first in jobs.events wins.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from schemas.codec import Record
from schemas.jobs import TERMINAL_STATES, JobState, Transition, rank, state_after

# A request ranks below every event.
REQUEST_RANK: Final = -1
_MAX_STAGE_INDEX: Final = (1 << 12) - 1
_MAX_ATTEMPT: Final = (1 << 32) - 1


class StoredEvent(msgspec.Struct, frozen=True, kw_only=True):
    """What the read model keeps of a JobEvent. partition, offset: where it stands in jobs.events; the rest as there."""

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
    found = rank(Transition(transition), stage_index, attempt)
    return (found.final << 52) | (found.stage_index << 40) | (found.attempt << 8) | found.phase


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
    """A job after some of its events. Times in ms since 1970; artefacts by (stage, role), of succeeded attempts."""

    state: JobState
    stage: str | None = None
    attempt: int = 0
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
    failed = ended and state not in (JobState.SUCCEEDED, JobState.CANCELED)
    return JobFold(
        state=state,
        stage=at_stage[-1].stage if at_stage else None,
        attempt=at_stage[-1].attempt if at_stage else 0,
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
