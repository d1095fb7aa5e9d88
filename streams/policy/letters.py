"""Dead letters of jobs that the scheduler itself gives up; a worker writes its own."""

from collections.abc import Mapping
from typing import Any, Final

from schemas.pipelines import PIPELINES
from schemas.topics import requests_topic
from streams.policy.decisions import Dead
from streams.policy.state import Job

ROLE: Final = "scheduler"
# The request's place on its topic is not known here; its bytes are, whole.
_NOWHERE: Final = -1


def dead_letter(job: Job, *, error_class: str, message: str, at: int) -> Dead:
    """A job that failed for good while no worker held it."""
    about = {
        "job_id": job.job_id,
        "user_id": job.user_id,
        "pipeline_id": job.pipeline_id,
        "stage": job.stage,
        "artefacts": list(job.artefacts),
        "traceparent": job.traceparent,
        "request": job.request,
        "attempt": job.attempt,
    }
    return dead_record(about, error_class=error_class, message=message, at=at)


def dead_record(about: Mapping[str, Any], *, error_class: str, message: str, at: int) -> Dead:
    """A DeadLetter of a job; about: a StageReady, or what it would hold. Its value is the request."""
    pipeline = PIPELINES.get(about["pipeline_id"])
    request = about["request"]
    return Dead(
        letter={
            "topic": requests_topic(pipeline.workflow if pipeline else "unknown"),
            "partition": _NOWHERE,
            "offset": _NOWHERE,
            "key": about["user_id"].encode(),
            "value": request,
            "reason": error_class,
            "detail": message,
            "schema_id": int.from_bytes(request[1:5], "big") if len(request) >= 5 else None,
            "attempts": about.get("attempt", 0),
            "role": ROLE,
            "at": at,
            "job": {
                "job_id": about["job_id"],
                "user_id": about["user_id"],
                "stage": about["stage"],
                "error_class": error_class,
                "artefacts": list(about["artefacts"]),
                "traceparent": about["traceparent"],
            },
        }
    )
