"""Builds job events and their kin. The id of an event is a function of what happened, so whoever tells it twice tells
the same.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from schemas.codec import Record
from schemas.jobs import TERMINAL_TRANSITIONS, Transition
from schemas.pipelines import PIPELINES

_FINAL: Final = TERMINAL_TRANSITIONS - {Transition.REJECTED}


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
    """A JobEvent about `job`: any record with job_id, user_id, pipeline_id, created_at and perhaps traceparent, lane,
    tier, priority, retry_of, adjustments. The workflow is the pipeline's, unless `job` names one.

    `details` are the nullable fields of the schema: slot, epoch, pool, resource_class, model_version, wait_seconds,
    run_seconds, gpu_seconds, error_class, error_message, due_at; and lane, tier, priority, retry_of, adjustments, which
    go before those of `job`. Final events name no stage in their id: a job has one end of each kind, whichever attempt
    brought it. Raises KeyError for a job without a workflow whose pipeline is unknown.
    """
    final = transition in _FINAL
    identity = (None, 0) if final else (stage, attempt)
    return {
        "event_id": event_id(job["job_id"], *identity, transition.value),
        "job_id": job["job_id"],
        "user_id": job["user_id"],
        "workflow": job.get("workflow") or PIPELINES[job["pipeline_id"]].workflow,
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
        "lane": details.get("lane", job.get("lane")),
        "tier": details.get("tier", job.get("tier")),
        "priority": details.get("priority", job.get("priority")),
        "due_at": details.get("due_at"),
        "retry_of": details.get("retry_of", job.get("retry_of")),
        "adjustments": list(details.get("adjustments", job.get("adjustments")) or ()),
    }


def closed(user_id: str, job_ids: Sequence[str], *, at: int) -> Record:
    """A UserClosed: these jobs of the user have ended."""
    return {"user_id": user_id, "job_ids": list(job_ids), "at": at}


def platform_event(kind: str, *, domain: str, subject: str, detail: Mapping[str, object], at: int) -> Record:
    """A PlatformEvent. `kind`: load_level, routing, policy, repair, shards; values of `detail` are told as text."""
    return {
        "kind": kind,
        "domain": domain,
        "subject": subject,
        "detail": {name: str(value) for name, value in detail.items()},
        "at": at,
    }
