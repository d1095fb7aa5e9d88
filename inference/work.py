"""Work as the worker holds it: typed once from the decoded record."""

from typing import Any

import msgspec

from schemas.codec import Codec, Record
from schemas.errors import CodecError
from schemas.pipelines import PIPELINES


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
    """One attempt of one stage of one job; the fields of the Avro record of that name. Times in ms since 1970.

    quality and texture_size are what is to be made, which under load is less than what the request asks for; request
    is the JobRequested record as it came, read once by `read_request` when the item's turn has come.
    """

    dispatch_id: str
    job_id: str
    user_id: str
    stage: str
    stage_index: int
    stage_count: int
    attempt: int
    max_attempts: int
    pipeline_id: str
    model_version: str | None = None
    artefacts: tuple[Artefact, ...]
    traceparent: str | None = None
    created_at: int
    ready_at: int
    dispatched_at: int
    quality: str = "standard"
    texture_size: int | None = None
    lane: str = "standard"
    tier: str = "free"
    priority: int = 3
    adjustments: tuple[str, ...] = ()
    retry_of: str | None = None
    request: bytes = b""

    @property
    def is_last_stage(self) -> bool:
        """Whether its success ends the job."""
        return self.stage_index + 1 >= self.stage_count

    @property
    def workflow(self) -> str:
        """What the user asked for; it follows from the pipeline."""
        pipeline = PIPELINES.get(self.pipeline_id)
        return pipeline.workflow if pipeline else ""

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
            "lane": self.lane,
            "tier": self.tier,
            "priority": self.priority,
            "retry_of": self.retry_of,
            "adjustments": self.adjustments,
        }


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What a stage needs to know of the request."""

    prompt: str | None
    seed: int
    formats: tuple[str, ...]
    parameters: dict[str, str]


class RequestUnreadable(ValueError):
    """The request that came with the work is no JobRequested record."""

    def __init__(self, detail: str) -> None:
        self.detail = detail
        super().__init__(f"{self.__doc__} {detail}")


def read_request(codec: Codec, item: WorkItem) -> Wish:
    """The request of an item. Raises RequestUnreadable."""
    try:
        record = codec.decode(item.request, "job_requested")
    except CodecError as error:
        raise RequestUnreadable(str(error)) from error
    return Wish(
        prompt=record["prompt"],
        seed=record["seed"],
        formats=tuple(record["formats"]),
        parameters=record["parameters"],
    )


def work_item(record: Any) -> WorkItem:
    """A WorkItem from its decoded Avro record."""
    return msgspec.convert(record, WorkItem)
