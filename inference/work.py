"""Work as the worker holds it: typed once from the decoded record."""

from typing import Any

import msgspec

from schemas.codec import Record


class Artefact(msgspec.Struct, frozen=True, kw_only=True):
    """A stored file; the fields of the Avro record of that name."""

    role: str
    uri: str
    sha256: str
    bytes: int
    media_type: str

    def record(self) -> Record:
        """As it travels."""
        return {
            "role": self.role,
            "uri": self.uri,
            "sha256": self.sha256,
            "bytes": self.bytes,
            "media_type": self.media_type,
        }


class WorkItem(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt of one stage of one job; the fields of the Avro record of that name. Times in ms since 1970."""

    dispatch_id: str
    job_id: str
    user_id: str
    stage: str
    stage_index: int
    stage_count: int
    attempt: int
    max_attempts: int
    workflow: str
    pipeline_id: str
    model_version: str | None = None
    prompt: str | None = None
    seed: int
    quality: str
    formats: tuple[str, ...]
    parameters: dict[str, str]
    artefacts: tuple[Artefact, ...]
    traceparent: str | None = None
    created_at: int
    ready_at: int
    dispatched_at: int

    @property
    def is_last_stage(self) -> bool:
        """Whether its success ends the job."""
        return self.stage_index + 1 >= self.stage_count

    @property
    def trace_id(self) -> str | None:
        """The trace's id out of the W3C trace context."""
        parts = (self.traceparent or "").split("-")
        return parts[1] if len(parts) == 4 else None

    def job(self) -> Record:
        """What `schemas.events.job_event` needs to know of the job."""
        return {
            "job_id": self.job_id,
            "user_id": self.user_id,
            "workflow": self.workflow,
            "pipeline_id": self.pipeline_id,
            "created_at": self.created_at,
            "traceparent": self.traceparent,
        }


def work_item(record: Any) -> WorkItem:
    """A WorkItem from its decoded Avro record."""
    return msgspec.convert(record, WorkItem)
