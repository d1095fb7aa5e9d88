"""The lint over all schemas, and proof that each of its rules catches what it is for."""

import json
import re
from typing import Any

import pytest

from schemas.registry import AVRO
from tests.unit.schemas.examples import RECORDS, each_record, schema_text
from tests.unit.schemas.lint import MAX_DEPTH, problems


@each_record
def test_a_schema_obeys_the_rules(record: str) -> None:
    assert problems(json.loads(schema_text(record))) == []


@each_record
def test_a_records_name_is_its_folders(record: str) -> None:
    assert json.loads(schema_text(record))["name"] == "".join(word.title() for word in record.split("_"))


@each_record
def test_a_record_folder_holds_versions_and_examples_only(record: str) -> None:
    names = {entry.name for entry in (AVRO / record).iterdir()}
    versions = names - {"examples"}
    assert versions == {f"v{number}.avsc" for number in range(1, len(versions) + 1)}


def test_there_are_schemas() -> None:
    assert len(RECORDS) >= 12


def _record(field_type: Any, **extra: Any) -> dict[str, Any]:
    field = {"name": "value", "type": field_type, "doc": "A value."} | extra
    return {"type": "record", "name": "Bad", "namespace": "meshyard", "doc": "Breaks a rule.", "fields": [field]}


def _deep(levels: int) -> dict[str, Any]:
    node: Any = "int"
    for _ in range(levels):
        node = {"type": "array", "items": node}
    return _record(node)


EMPTY = {"type": "record", "name": "Empty", "doc": "Nothing.", "fields": []}

BROKEN = {
    "recursion": (_record(["null", "meshyard.Bad"], default=None), "recursion"),
    "recursion through an array": (_record({"type": "array", "items": "Bad"}), "recursion"),
    "an array of null": (_record({"type": "array", "items": "null"}), "without bytes"),
    "an array of empty records": (_record({"type": "array", "items": EMPTY}), "without bytes"),
    "a decimal over bytes": (
        _record({"type": "bytes", "logicalType": "decimal", "precision": 20}),
        "logical type decimal",
    ),
    "too deep": (_deep(MAX_DEPTH + 1), "deeper than 16"),
    "a union of two types": (_record(["string", "long"], default="x"), "not .null, T."),
    "null second": (_record(["string", "null"], default="x"), "not .null, T."),
    "three branches": (_record(["null", "string", "long"], default=None), "not .null, T."),
    "a nullable field without a default": (_record(["null", "string"]), "default of a nullable field"),
    "a nullable field with another default": (_record(["null", "string"], default="x"), "default of a nullable"),
    "a field without doc": (_record("int", doc=""), "value: no doc"),
    "a type without doc": (_record("int") | {"doc": ""}, "Bad: no doc"),
    "a field in CamelCase": (_record("int", name="someValue"), "snake_case"),
    "a type in snake_case": (_record("int") | {"name": "bad_one"}, "CamelCase"),
    "another namespace": (_record("int") | {"namespace": "other"}, "namespace"),
    "an unknown type": (_record("meshyard.Missing"), "unknown type"),
    "a symbol in capitals": (_record({"type": "enum", "name": "E", "doc": "E.", "symbols": ["A"]}), "symbol A"),
    "a fixed": (_record({"type": "fixed", "name": "F", "size": 0}), "unknown type fixed"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_the_lint_catches(case: str) -> None:
    schema, expected = BROKEN[case]
    found = problems(schema)
    assert found
    assert any(re.search(expected, text) for text in found), found


def test_the_depth_limit_is_inclusive() -> None:
    assert problems(_deep(MAX_DEPTH - 1)) == []
