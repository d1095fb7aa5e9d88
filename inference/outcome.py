"""From a finished attempt to the records that tell of it. Pure: no clock, no I/O.

The worker writes these in one transaction; which ones they are follows the table of transitions in `schemas/jobs.py`.
"""

from dataclasses import dataclass
from typing import Final

from inference.work import Artefact, WorkItem
from schemas.codec import Record
from schemas.events import job_event
from schemas.jobs import Transition, is_final_failure

# A record has a size limit, and a message of more is no message.
MESSAGE_CHARACTERS: Final = 1000


@dataclass(frozen=True, kw_only=True)
class SlotIdentity:
    """Who did it: one life (epoch) of one slot."""

    slot: int
    epoch: int
    pool: str
    resource_class: str


@dataclass(frozen=True, kw_only=True)
class Succeeded:
    """The stage made these artefacts; they are stored."""

    artefacts: tuple[Artefact, ...]


@dataclass(frozen=True, kw_only=True)
class Failed:
    """No result. error_class: transient, permanent, invalid, oom, crash or timeout; message: for the user."""

    error_class: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Canceled:
    """Stopped, or never begun, because the user canceled the job."""


Ending = Succeeded | Failed | Canceled


@dataclass(frozen=True, kw_only=True)
class Finished:
    """An attempt and how it ended. started_at: ms, None for one that was canceled before it began."""

    item: WorkItem
    started_at: int | None
    ended_at: int
    ending: Ending

    @property
    def run_seconds(self) -> float:
        """How long the slot was held for it."""
        return 0.0 if self.started_at is None else max(0, self.ended_at - self.started_at) / 1000


def started_event(item: WorkItem, who: SlotIdentity, at: int) -> Record:
    """The JobEvent of an attempt's beginning."""
    return job_event(
        item.job(),
        Transition.STARTED,
        at=at,
        stage=item.stage,
        stage_index=item.stage_index,
        stage_count=item.stage_count,
        attempt=item.attempt,
        model_version=item.model_version,
        wait_seconds=_wait_seconds(item, at),
        slot=who.slot,
        epoch=who.epoch,
        pool=who.pool,
        resource_class=who.resource_class,
    )


def job_events(finished: Finished, who: SlotIdentity) -> list[Record]:
    """The JobEvents of an attempt's end, in the order of writing: the stage's own, then the job's if it ends here."""
    item = finished.item
    match finished.ending:
        case Succeeded():
            transitions = [Transition.STAGE_SUCCEEDED]
            if item.is_last_stage:
                transitions.append(Transition.SUCCEEDED)
        case Failed(error_class=error_class):
            transitions = [Transition.STAGE_FAILED]
            if is_final_failure(error_class, item.attempt, item.max_attempts):
                transitions.append(Transition.FAILED)
        case Canceled():
            transitions = [Transition.CANCELED]
    return [_event(finished, transition, who) for transition in transitions]


def settled_entry(finished: Finished, who: SlotIdentity) -> Record:
    """The scheduler's inbox entry of an attempt's end."""
    item = finished.item
    artefacts: tuple[Artefact, ...] = ()
    error_class = None
    match finished.ending:
        case Succeeded(artefacts=made):
            outcome, artefacts = "succeeded", made
        case Failed(error_class=kind):
            outcome, error_class = "failed", kind
        case Canceled():
            outcome = "canceled"
    settled = {
        "job_id": item.job_id,
        "stage": item.stage,
        "attempt": item.attempt,
        "slot": who.slot,
        "epoch": who.epoch,
        "outcome": outcome,
        "error_class": error_class,
        "gpu_seconds": finished.run_seconds,
        "artefacts": [artefact.record() for artefact in artefacts],
    }
    return {"kind": "stage_settled", "at": finished.ended_at, "settled": settled}


def slot_entry(kind: str, who: SlotIdentity, serves: tuple[str, ...], at: int) -> Record:
    """The inbox entry by which a slot joins or leaves. kind: slot_joined or slot_lost."""
    change = {
        "slot": who.slot,
        "epoch": who.epoch,
        "pool": who.pool,
        "resource_class": who.resource_class,
        "serves": list(serves),
    }
    return {"kind": kind, "at": at, "slot": change}


def _event(finished: Finished, transition: Transition, who: SlotIdentity) -> Record:
    item, ending = finished.item, finished.ending
    began = finished.started_at
    return job_event(
        item.job(),
        transition,
        at=finished.ended_at,
        stage=item.stage,
        stage_index=item.stage_index,
        stage_count=item.stage_count,
        attempt=item.attempt,
        # Of a stage's end alone: whoever sums artefacts over events counts each once.
        artefacts=[a.record() for a in ending.artefacts]
        if isinstance(ending, Succeeded) and transition is Transition.STAGE_SUCCEEDED
        else (),
        model_version=item.model_version,
        wait_seconds=None if began is None else _wait_seconds(item, began),
        run_seconds=None if began is None else finished.run_seconds,
        gpu_seconds=None if began is None else finished.run_seconds,
        slot=who.slot,
        epoch=who.epoch,
        pool=who.pool,
        resource_class=who.resource_class,
        error_class=ending.error_class if isinstance(ending, Failed) else None,
        error_message=ending.message[:MESSAGE_CHARACTERS] if isinstance(ending, Failed) else None,
    )


def _wait_seconds(item: WorkItem, started_at: int) -> float:
    return max(0, started_at - item.ready_at) / 1000
