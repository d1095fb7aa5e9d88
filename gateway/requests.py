"""A user's wish as the record that goes to Kafka."""

from gateway import ids
from gateway.auth import Principal
from gateway.validation import JobBody, run_at_ms
from schemas.codec import Record
from schemas.pipelines import Pipeline


def request_record(body: JobBody, pipeline: Pipeline, principal: Principal, job_id: str, now_ms: int) -> Record:
    """The JobRequested of a valid body, still without request_id and traceparent. Raises Problem for a bad run_at.

    The same body gives the same record apart from created_at, so that a repeated request is known as one.
    """
    return {
        "job_id": job_id,
        "user_id": principal.user_id,
        "tier": None,
        "job_type": body.job_type,
        "created_at": now_ms,
        "workflow": body.workflow,
        "pipeline_id": pipeline.pipeline_id,
        "model_version": body.model_version,
        "prompt": body.prompt,
        "seed": body.seed if body.seed is not None else ids.derived_seed(job_id),
        "quality": body.quality,
        "formats": sorted(set(body.formats)),
        "parameters": dict(body.parameters),
        "lane": body.lane,
        "priority": body.priority,
        "texture_size": body.texture_size,
        "run_at": run_at_ms(body.run_at, now_ms),
        "on_limit": body.on_limit,
        "debounce_key": body.debounce.key if body.debounce is not None else None,
        "debounce_seconds": body.debounce.seconds if body.debounce is not None else None,
        "start_within_seconds": body.start_within_seconds,
        "finish_within_seconds": body.finish_within_seconds,
        "max_queue_depth": body.max_queue_depth,
        "key_id": principal.key_id,
        "retry_of": None,
        "resume": None,
    }
