"""The StageReady entry of a job that may begin: admission writes it, the reconciler writes it again when it was lost.

Pure. The request itself travels along as the bytes that came; only what the scheduler decides by stands beside it.
"""

from collections.abc import Mapping
from typing import Any

from schemas.pipelines import PIPELINES


def lane_of(request: Mapping[str, Any]) -> str:
    """The lane that a request asks for; drafts are interactive, everything else is standard."""
    return request["lane"] or ("interactive" if request["quality"] == "draft" else "standard")


def stage_ready(request: Mapping[str, Any], raw: bytes, *, tier: str, at_ms: int) -> dict[str, Any]:
    """The entry's `ready` for a JobRequested record and its bytes.

    tier: by control.tenants; at_ms: when the job was accepted or released; its deadlines count from then.
    """
    resume = request["resume"]
    return {
        "job_id": request["job_id"],
        "user_id": request["user_id"],
        "pipeline_id": request["pipeline_id"],
        "stage": resume["stage"] if resume else PIPELINES[request["pipeline_id"]].stages[0].name,
        "tier": tier,
        "model_version": request["model_version"],
        "quality": request["quality"],
        "texture_size": request["texture_size"],
        "lane": lane_of(request),
        "priority": request["priority"],
        "artefacts": resume["artefacts"] if resume else [],
        "start_by": _deadline(at_ms, request["start_within_seconds"]),
        "finish_by": _deadline(at_ms, request["finish_within_seconds"]),
        "max_queue_depth": request["max_queue_depth"],
        "retry_of": request["retry_of"],
        "traceparent": request["traceparent"],
        "created_at": request["created_at"],
        "request": raw,
    }


def _deadline(at_ms: int, within_seconds: float | None) -> int | None:
    return None if within_seconds is None else at_ms + round(within_seconds * 1000)
