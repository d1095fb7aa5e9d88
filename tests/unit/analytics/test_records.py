"""Rows, hashes and intents: pure parts of the sink."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analytics.intents import Intent, Source, intent_of
from analytics.records import COLUMNS, Raw, is_row, record_hash, row_of
from schemas.codec import Codec
from schemas.errors import CodecError
from schemas.events import job_event
from schemas.jobs import Transition

codec = Codec()
JOB = {"job_id": "j", "user_id": "u", "workflow": "w", "pipeline_id": "p", "created_at": 1, "traceparent": None}
SOURCE = Source(cluster_id="c", topic="jobs.events", topic_id="t", partition=3)


def raw(value: bytes | None, offset: int = 7) -> Raw:
    return Raw(topic="jobs.events", partition=3, offset=offset, key=b"j", value=value)


def event(**changes: Any) -> dict[str, Any]:
    artefact = {"role": "glb", "uri": "file:///a", "sha256": "00", "bytes": 5, "media_type": "model/gltf-binary"}
    made = job_event(JOB, Transition.STAGE_SUCCEEDED, at=9, stage="texture", stage_count=3, artefacts=[artefact])
    return {**made, **changes}


def test_a_row_has_every_column_in_order() -> None:
    row = dict(zip(COLUMNS, row_of(raw(codec.encode("job_event", event(slot=4))), codec), strict=True))
    assert (row["topic"], row["partition"], row["offset"]) == ("jobs.events", 3, 7)
    assert (row["stage"], row["slot"], row["epoch"], row["pool"]) == ("texture", 4, None, "")
    assert row["artefacts"] == [("glb", "file:///a", "00", 5, "model/gltf-binary")]
    assert row["at"] == 9


@pytest.mark.parametrize("field", ["attempt", "stage_index", "stage_count"])
@pytest.mark.parametrize("value", [2**31, -(2**31) - 1])
def test_integers_that_no_column_takes_are_poison(field: str, value: int) -> None:
    encoded = codec.encode("job_event", event(**{field: value}))
    with pytest.raises(CodecError, match="32 bits"):
        row_of(raw(encoded), codec)


def test_other_records_are_poison() -> None:
    assert not is_row(raw(None), codec)
    assert not is_row(raw(b"\x00\x00\x00"), codec)
    assert not is_row(raw(codec.encode("admission_tick", {"ticked_at": 1})), codec)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_bytes_are_a_row_or_a_codec_error(value: bytes) -> None:
    header = codec.encode("job_event", event())[:5]
    for candidate in (value, header + value):
        try:
            row = row_of(raw(candidate), codec)
        except CodecError:
            continue
        assert len(row) == len(COLUMNS)


def test_hashes_differ_by_offset_key_and_value() -> None:
    one = raw(b"v")
    others = [raw(b"w"), raw(b"v", offset=8), one._replace(key=b"k"), one._replace(key=None), one._replace(value=None)]
    hashes = [record_hash(each) for each in (one, *others)]
    assert len(set(hashes)) == len(hashes)
    assert all(0 <= each < 2**64 for each in hashes)


@settings(deadline=None)
@given(st.integers(0, 2**62), st.integers(1, 2**20))
def test_intents_come_back_from_metadata(start: int, size: int) -> None:
    intent = Intent(start=start, end=start + size)
    assert intent_of(start, intent.metadata) == intent


@pytest.mark.parametrize(
    "metadata", [None, "", "end=", "end=5", "end=4", "end=9x", "start=1", "end=-3", "end=" + "9" * 30]
)
def test_other_metadata_is_no_intent(metadata: str | None) -> None:
    assert intent_of(5, metadata) is None


def test_tokens_name_the_place_the_range_and_the_table() -> None:
    token = Intent(start=5, end=9).token(SOURCE, "epoch")
    assert token == "c/t/3/5-9/epoch"
    assert token != Intent(start=5, end=9).token(SOURCE, "another table")
