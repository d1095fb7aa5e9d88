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
class SlotOffer:
    """What a slot offers. serves: stages, each as pipeline_id/stage; versions: models, each as pipeline_id@version,
    none: every one; capacity: tasks at once."""

    serves: tuple[str, ...]
    versions: tuple[str, ...] = ()
    capacity: int = 1


@dataclass(frozen=True, kw_only=True)
class Succeeded:
    """The stage made these artefacts; they are stored."""

    artefacts: tuple[Artefact, ...]


@dataclass(frozen=True, kw_only=True)
class Failed:
    """No result. error_class: one of `schemas.jobs.RETRY_BY_ERROR` but lost; message: for the user;
    retry_after_seconds: how long the stage asked to be left alone."""

    error_class: str
    message: str
    retry_after_seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Canceled:
    """Stopped, or never begun, because the user canceled the job."""


Ending = Succeeded | Failed | Canceled


@dataclass(frozen=True, kw_only=True)
class Finished:
    """An attempt and how it ended.

    started_at: ms, None for one that was canceled before it began. seconds: how long the slot was held for it; None:
    from its start to its end. started_told: whether its start was told when it happened, else it is with the end.
    """

    item: WorkItem
    started_at: int | None
    ended_at: int
    ending: Ending
    seconds: float | None = None
    started_told: bool = True

    @property
    def run_seconds(self) -> float:
        """How long the slot was held for it."""
        if self.seconds is not None:
            return self.seconds
        return 0.0 if self.started_at is None else max(0, self.ended_at - self.started_at) / 1000

    @property
    def ends_job(self) -> bool:
        """Whether the job fails for good by it."""
        ending, item = self.ending, self.item
        return isinstance(ending, Failed) and is_final_failure(ending.error_class, item.attempt, item.max_attempts)


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
    """The JobEvents of an attempt's end, in the order of writing: its start if it was not told yet, the stage's own,
    then the job's if it ends here."""
    item = finished.item
    events = []
    if not finished.started_told and finished.started_at is not None:
        events.append(started_event(item, who, finished.started_at))
    match finished.ending:
        case Succeeded():
            transitions = [Transition.STAGE_SUCCEEDED]
            if item.is_last_stage:
                transitions.append(Transition.SUCCEEDED)
        case Failed():
            transitions = [Transition.STAGE_FAILED]
            if finished.ends_job:
                transitions.append(Transition.FAILED)
        case Canceled():
            transitions = [Transition.CANCELED]
    return events + [_event(finished, transition, who) for transition in transitions]


def dead_letter(finished: Finished, workflow_topic: str) -> Record:
    """The DeadLetter of a job that failed for good: its request, the stage that failed and what was made before it.

    A worker does not know where the request stood: partition and offset are -1.
    """
    item, ending = finished.item, finished.ending
    assert isinstance(ending, Failed)
    return {
        "topic": workflow_topic,
        "partition": -1,
        "offset": -1,
        "key": item.user_id.encode(),
        "value": item.request,
        "reason": ending.error_class,
        "detail": ending.message[:MESSAGE_CHARACTERS],
        "schema_id": None,
        "attempts": item.attempt,
        "role": "worker",
        "at": finished.ended_at,
        "job": {
            "job_id": item.job_id,
            "user_id": item.user_id,
            "stage": item.stage,
            "error_class": ending.error_class,
            "artefacts": [artefact.record() for artefact in item.artefacts],
            "traceparent": item.traceparent,
        },
    }


def settled_entry(finished: Finished, who: SlotIdentity) -> Record:
    """The scheduler's inbox entry of an attempt's end."""
    item = finished.item
    artefacts: tuple[Artefact, ...] = ()
    error_class = retry_after_seconds = None
    match finished.ending:
        case Succeeded(artefacts=made):
            outcome, artefacts = "succeeded", made
        case Failed() as failed:
            outcome, error_class = "failed", failed.error_class
            retry_after_seconds = failed.retry_after_seconds
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
        "retry_after_seconds": retry_after_seconds,
        "run_seconds": finished.run_seconds,
    }
    return {"kind": "stage_settled", "at": finished.ended_at, "settled": settled}


def slot_entry(kind: str, who: SlotIdentity, offer: SlotOffer, at: int) -> Record:
    """The inbox entry by which a slot joins or leaves. kind: slot_joined or slot_lost."""
    change = {
        "slot": who.slot,
        "epoch": who.epoch,
        "pool": who.pool,
        "resource_class": who.resource_class,
        "serves": list(offer.serves),
        "versions": list(offer.versions),
        "capacity": offer.capacity,
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
