"""From a record of jobs.events to a row of `job_events`. Whatever gets through here, ClickHouse takes."""

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from schemas.codec import Codec
from schemas.errors import CodecError

COLUMNS = (
    "topic", "partition", "offset", "record_hash", "event_id", "job_id", "user_id", "workflow", "pipeline_id",
    "transition", "stage", "stage_index", "stage_count", "attempt", "at", "created_at", "slot", "epoch", "pool",
    "resource_class", "model_version", "wait_seconds", "run_seconds", "gpu_seconds", "error_class", "error_message",
    "artefacts", "traceparent", "lane", "tier", "priority", "due_at", "retry_of", "adjustments",
)  # fmt: skip

Row = tuple[Any, ...]


class Raw(NamedTuple):
    """A record as Kafka has it."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None


def record_hash(raw: Raw) -> int:
    """64 bits of BLAKE2b over offset, key and value; their sum over a partition tells whether two copies agree."""
    key = raw.key if raw.key is not None else b""
    head = raw.offset.to_bytes(8, "little") + len(key).to_bytes(4, "little")
    return int.from_bytes(hashlib.blake2b(head + key + (raw.value or b""), digest_size=8).digest(), "little")


def row_of(raw: Raw, codec: Codec) -> Row:
    """The row of a record, in the order of COLUMNS.

    Raises:
        CodecError: the value is no JobEvent, or holds a number that no column takes.
    """
    record = codec.decode_strict(raw.value, "job_event")
    return (
        raw.topic, raw.partition, raw.offset, record_hash(raw), record["event_id"], record["job_id"], record["user_id"],
        record["workflow"], record["pipeline_id"], record["transition"], record["stage"] or "", record["stage_index"],
        record["stage_count"], record["attempt"], record["at"], record["created_at"], record["slot"], record["epoch"],
        record["pool"] or "", record["resource_class"] or "", record["model_version"] or "", record["wait_seconds"],
        record["run_seconds"], record["gpu_seconds"], record["error_class"] or "", record["error_message"] or "",
        [_artefact(each) for each in record["artefacts"]], record["traceparent"] or "",
        record["lane"] or "", record["tier"] or "", record["priority"], record["due_at"], record["retry_of"] or "",
        record["adjustments"],
    )  # fmt: skip


def is_row(raw: Raw, codec: Codec) -> bool:
    """Whether `row_of` takes this record; the others go to the dead letters."""
    try:
        row_of(raw, codec)
    except CodecError:
        return False
    return True


def _artefact(artefact: Mapping[str, Any]) -> tuple[str, str, str, int, str]:
    return artefact["role"], artefact["uri"], artefact["sha256"], artefact["bytes"], artefact["media_type"]
