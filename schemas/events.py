"""Builds job events. The id of an event is a function of what happened, so whoever tells it twice tells the same."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from schemas.codec import Record
from schemas.jobs import Transition


def event_id(job_id: str, stage: str | None, attempt: int, transition: str) -> str:
    """32 hex digits of SHA-256 over job, stage, attempt and transition."""
    text = "\x1f".join((job_id, stage or "", str(attempt), transition))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def dispatch_id(job_id: str, stage: str, attempt: int) -> str:
    """Names one attempt of one stage; work that comes twice carries the same."""
    return f"{job_id}/{stage}/{attempt}"


def job_event(
    job: Mapping[str, Any],
    transition: Transition,
    *,
    at: int,
    stage: str | None = None,
    stage_index: int = 0,
    stage_count: int,
    attempt: int = 0,
    artefacts: Sequence[Mapping[str, Any]] = (),
    **details: Any,
) -> Record:
    """A JobEvent about `job` (any record with job_id, user_id, workflow, pipeline_id, created_at, traceparent).

    `details` are the nullable fields of the schema: slot, epoch, pool, resource_class, model_version, wait_seconds,
    run_seconds, gpu_seconds, error_class, error_message. Final events name no stage in their id: a job has one end of
    each kind, whichever attempt brought it.
    """
    final = transition in (Transition.SUCCEEDED, Transition.FAILED, Transition.CANCELED)
    identity = (None, 0) if final else (stage, attempt)
    return {
        "event_id": event_id(job["job_id"], *identity, transition.value),
        "job_id": job["job_id"],
        "user_id": job["user_id"],
        "workflow": job["workflow"],
        "pipeline_id": job["pipeline_id"],
        "transition": transition.value,
        "stage": stage,
        "stage_index": stage_index,
        "stage_count": stage_count,
        "attempt": attempt,
        "at": at,
        "created_at": job["created_at"],
        "slot": details.get("slot"),
        "epoch": details.get("epoch"),
        "pool": details.get("pool"),
        "resource_class": details.get("resource_class"),
        "model_version": details.get("model_version"),
        "wait_seconds": details.get("wait_seconds"),
        "run_seconds": details.get("run_seconds"),
        "gpu_seconds": details.get("gpu_seconds"),
        "error_class": details.get("error_class"),
        "error_message": details.get("error_message"),
        "artefacts": list(artefacts),
        "traceparent": job.get("traceparent"),
    }
