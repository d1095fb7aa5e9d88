"""Every example message is a test case."""

import io
import json
import struct
from typing import Any

import fastavro
import pytest

from schemas import errors, events
from schemas.codec import Codec, Record
from schemas.jobs import TERMINAL_TRANSITIONS, Transition
from schemas.pipelines import PIPELINES
from schemas.registry import bundled
from tests.unit.schemas.examples import (
    ALL,
    RECORDS,
    each_example,
    each_old_example,
    each_record,
    example_files,
    load,
    schema_text,
    versions,
)


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec()


@each_record
def test_a_record_has_a_minimal_and_a_full_example(record: str) -> None:
    assert {"minimal", "full"} <= {name for owner, name in ALL if owner == record}


@each_example
def test_an_example_survives_both_ways_of_reading(codec: Codec, record: str, name: str) -> None:
    example = load(record, name)
    data = codec.encode(record, example)
    assert codec.decode(data, record) == example
    assert codec.decode_strict(data, record) == example
    assert codec.decode(data) == example
    assert codec.name_of(data) == record
    assert codec.schema_id(data) == bundled().latest(record).schema_id


@each_example
def test_an_example_shows_every_field(record: str, name: str) -> None:
    assert list(load(record, name)) == [field["name"] for field in json.loads(schema_text(record))["fields"]]


@each_record
def test_a_full_example_sets_what_a_minimal_one_leaves_open(record: str) -> None:
    minimal, full = load(record, "minimal"), load(record, "full")
    assert minimal != full
    open_fields = {field for field, value in minimal.items() if value in (None, [], {}, "")}
    filled = {field for field, value in full.items() if value not in (None, [], {}, "")}
    assert not open_fields or open_fields & filled


@each_record
def test_a_record_without_one_of_its_fields_is_refused(codec: Codec, record: str) -> None:
    example = load(record, "minimal")
    required = next(field for field, value in example.items() if value is not None)
    del example[required]
    with pytest.raises(errors.InvalidRecord, match=record):
        codec.encode(record, example)


@each_record
def test_members_that_the_schema_does_not_have_are_left_out(codec: Codec, record: str) -> None:
    example = load(record, "full")
    assert codec.encode(record, example | {"not_in_the_schema": 1}) == codec.encode(record, example)


@each_record
def test_a_nullable_member_that_is_missing_is_null(codec: Codec, record: str) -> None:
    nullable = [f["name"] for f in json.loads(schema_text(record))["fields"] if isinstance(f["type"], list)]
    example = load(record, "full")
    for field in nullable:
        del example[field]
    assert all(codec.decode(codec.encode(record, example))[field] is None for field in nullable)


@each_record
def test_a_record_is_not_read_where_another_belongs(codec: Codec, record: str) -> None:
    data = codec.encode(record, load(record, "minimal"))
    others = [name for name in RECORDS if name != record]
    with pytest.raises(errors.UnexpectedSchema, match=record) as caught:
        codec.decode(data, *others)
    assert caught.value.schema_id == bundled().latest(record).schema_id
    assert codec.decode(data, *others, record) == load(record, "minimal")


def test_ids_in_examples_are_the_ones_that_our_code_makes() -> None:
    for event in [load(record, name) for record, name in ALL if record == "job_event"]:
        transition = Transition(event["transition"])
        final = transition in TERMINAL_TRANSITIONS - {Transition.REJECTED}
        identity: tuple[str | None, int] = (None, 0) if final else (event["stage"], event["attempt"])
        assert event["event_id"] == events.event_id(event["job_id"], *identity, event["transition"])
    for name in ("minimal", "full"):
        for item in load("work_batch", name)["items"]:
            assert item["dispatch_id"] == events.dispatch_id(item["job_id"], item["stage"], item["attempt"])


def test_examples_of_inbox_entries_show_every_kind_with_its_own_member() -> None:
    member = {
        "stage_ready": "ready",
        "stage_settled": "settled",
        "slot_joined": "slot",
        "slot_lost": "slot",
        "slot_report": "report",
        "cancel": "cancel",
        "control": "control",
        "tenant_changed": "tenant",
        "routing_changed": "routing",
        "policy_changed": "policy",
        "tick": None,
    }
    entries: list[dict[str, Any]] = load("inbox_batch", "full")["entries"]
    assert {entry["kind"] for entry in entries} == set(member)
    for entry in entries:
        filled = {field for field, value in entry.items() if field not in ("kind", "at") and value is not None}
        assert filled == ({member[entry["kind"]]} - {None})


def test_examples_name_pipelines_stages_and_versions_that_exist() -> None:
    records = [load(record, name) for record, name in ALL if record in ("job_requested", "job_event")]
    records += load("work_batch", "full")["items"]
    records += [entry["ready"] for entry in load("inbox_batch", "full")["entries"] if entry["ready"]]
    for record in records:
        pipeline = PIPELINES[record["pipeline_id"]]
        assert record.get("workflow", pipeline.workflow) == pipeline.workflow
        assert record["model_version"] in (None, *pipeline.model_versions)
        if record.get("stage") is not None:
            assert pipeline.stage_index(record["stage"]) == record.get(
                "stage_index", pipeline.stage_index(record["stage"])
            )
            assert record.get("stage_count", len(pipeline.stages)) == len(pipeline.stages)


def test_the_request_travels_inside_as_it_came(codec: Codec) -> None:
    inside = [item["request"] for item in load("work_batch", "full")["items"]]
    inside += [entry["ready"]["request"] for entry in load("inbox_batch", "full")["entries"] if entry["ready"]]
    inside.append(load("dead_letter", "full")["value"])
    written = [codec.encode(record, load(record, name)) for record, name in ALL if record == "job_requested"]
    assert len(inside) == 5
    for data in inside:
        assert data in written


def test_every_older_version_has_examples() -> None:
    for record in RECORDS:
        for version in versions(record)[:-1]:
            assert {"minimal.json", "full.json"} <= {file.name for file in example_files(record, version)}


@each_old_example
def test_an_older_record_is_read_in_the_newest_shape(codec: Codec, record: str, version: int, name: str) -> None:
    old, fields = load(record, name, version), json.loads(schema_text(record))["fields"]
    data = old_bytes(record, version, old)
    found = codec.decode(data, record)
    assert found == codec.decode_strict(data, record)
    assert list(found) == [field["name"] for field in fields]
    assert codec.decode(codec.encode(record, found), record) == found
    for field in fields:
        if field["name"] not in old:
            assert found[field["name"]] == field["default"]
        elif not isinstance(old[field["name"]], list | dict):
            assert found[field["name"]] == old[field["name"]]


def test_new_members_inside_lists_are_filled_in_as_well(codec: Codec) -> None:
    batch = codec.decode(old_bytes("work_batch", 1, load("work_batch", "full", 1)))
    assert [item["request"] for item in batch["items"]] == [b"", b""]
    assert [item["lane"] for item in batch["items"]] == ["standard", "standard"]
    assert "prompt" not in batch["items"][0]
    slots = [e["slot"] for e in codec.decode(old_bytes("inbox_batch", 1, load("inbox_batch", "full", 1)))["entries"]]
    assert [(slot["capacity"], slot["versions"]) for slot in slots if slot] == [(1, []), (1, [])]


def test_defaults_are_not_shared_between_records(codec: Codec) -> None:
    data = old_bytes("job_event", 1, load("job_event", "full", 1))
    codec.decode(data)["adjustments"].append("mine")
    assert codec.decode(data)["adjustments"] == []


def test_an_older_record_is_checked_by_its_own_version(codec: Codec) -> None:
    data = old_bytes("tenant", 1, load("tenant", "full", 1) | {"burst_requests": 2**31})
    codec.decode(data)
    with pytest.raises(errors.InvalidField, match="32 bits") as caught:
        codec.decode_strict(data)
    assert caught.value.schema_id == 4
    with pytest.raises(errors.TrailingBytes):
        codec.decode_strict(old_bytes("tenant", 1, load("tenant", "full", 1)) + b"\x00\x00")


def test_a_member_with_a_default_may_be_left_out(codec: Codec) -> None:
    item = load("work_batch", "minimal")["items"][0]
    bare = {name: value for name, value in item.items() if name not in ("request", "adjustments", "priority")}
    written = codec.encode("work_batch", load("work_batch", "minimal") | {"items": [bare]})
    assert codec.decode(written)["items"][0] == item | {"request": b"", "adjustments": [], "priority": 3}


def old_bytes(record: str, version: int, value: Record) -> bytes:
    """A record as a release wrote it whose newest version was `version`."""
    schema_id = next(v.schema_id for v in bundled().all() if (v.name, v.version) == (record, version))
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(json.loads(schema_text(record, version))), value)
    return struct.pack(">bI", 0, schema_id) + out.getvalue()


def test_a_record_over_the_size_limit_is_not_written(codec: Codec) -> None:
    example = load("job_requested", "full") | {"prompt": "x" * (256 * 1024)}
    with pytest.raises(errors.MessageTooLarge):
        codec.encode("job_requested", example)


def test_a_dead_letter_may_hold_a_record_that_was_too_large(codec: Codec) -> None:
    example = load("dead_letter", "full") | {"value": b"\x00" * (300 * 1024)}
    assert len(codec.encode_large("dead_letter", example)) > 300 * 1024


def test_an_unknown_record_name_is_a_registry_error(codec: Codec) -> None:
    with pytest.raises(errors.RegistryError, match="known: admission_answer"):
        codec.encode("no_such_record", {})
