"""Heads of events, read by hand: the same as the codec reads, and the same refusals."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.heads import HeadReader
from schemas.errors import CodecError, TruncatedMessage, UnexpectedSchema, UnknownSchemaId, WrongMagicByte
from schemas.jobs import Transition
from schemas.registry import bundled
from tests.unit.gateway.events import CODEC, HEADS, record

texts = st.text(max_size=200)
longs = st.integers(-(2**63), 2**63 - 1)


@settings(deadline=None)
@given(texts, texts, texts, texts, st.none() | texts, st.integers(-(2**31), 2**31 - 1), longs, longs)
def test_a_head_is_what_the_codec_reads(
    job_id: str, user_id: str, workflow: str, pipeline: str, stage: str | None, attempt: int, at: int, created_at: int
) -> None:
    made = record(Transition.STARTED, 0, stage_index=0, attempt=1)
    made |= {"job_id": job_id, "user_id": user_id, "workflow": workflow, "pipeline_id": pipeline}
    made |= {"stage": stage, "stage_index": attempt, "attempt": attempt, "at": at, "created_at": created_at}
    value = CODEC.encode("job_event", made)
    head = HEADS.read(value)
    assert head[:5] == (job_id, user_id, workflow, pipeline, "started")
    assert HeadReader.times(value, head) == (at, created_at)


def test_every_version_of_the_schema_can_be_read() -> None:
    ids = [version.schema_id for version in bundled().all() if version.name == "job_event"]
    assert len(ids) > 1
    body = CODEC.encode("job_event", record(Transition.QUEUED, 0))[5:]
    for schema_id in ids:
        assert HEADS.read(b"\0" + schema_id.to_bytes(4, "big") + body).transition == "queued"


def outcome(value: bytes) -> str | None:
    try:
        HeadReader.times(value, HEADS.read(value))
    except CodecError as error:
        return error.code
    return None


@settings(deadline=None)
@given(st.binary(max_size=80))
def test_any_bytes_end_in_a_head_or_a_codec_error(tail: bytes) -> None:
    start = CODEC.encode("job_event", record(Transition.QUEUED, 0))[:5]
    assert outcome(start + tail) in (None, "truncated", "invalid_field")
    if tail[:1] != b"\0":
        assert outcome(tail) is not None


def test_refusals_are_the_codecs() -> None:
    other = CODEC.encode("job_progress", {**record(Transition.STARTED, 0), "percent": 1.0, "message": "", "stage": "x"})
    for value, kind in (
        (b"{}", WrongMagicByte),
        (b"\0\0\0", TruncatedMessage),
        (b"\0\0\0\xff\xff", UnknownSchemaId),
        (other, UnexpectedSchema),
    ):
        with pytest.raises(kind):
            HEADS.read(value)
