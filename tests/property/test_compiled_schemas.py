"""Functions made from the schemas say what fastavro says: of every record, and of every damage to one."""

import io
import json
import math
from collections.abc import Mapping
from functools import cache
from typing import Any

import fastavro
import pytest
from fastavro.schema import parse_schema
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas import codec as module
from schemas.codec import Codec, Record
from schemas.compiled import NotCompilable, compile_reader, compile_writer
from schemas.errors import CodecError, InvalidRecord
from schemas.registry import bundled
from tests.unit.schemas.examples import example_files, load

VERSIONS = sorted(bundled().all(), key=lambda version: (version.name, version.version))
IDS = [f"{version.name} v{version.version}" for version in VERSIONS]
QUICK = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def values(schema: Any, named: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that fit a schema. `named`: the types that have names, filled on the way."""
    if isinstance(schema, str) and schema in named:
        schema = named[schema]
    if isinstance(schema, list):
        return st.one_of(*(values(branch, named) for branch in schema))
    kind = schema if isinstance(schema, str) else schema["type"]
    if isinstance(schema, dict) and "name" in schema:
        named[f"{schema.get('namespace', '')}.{schema['name']}".lstrip(".")] = schema
    match kind:
        case "array":
            return st.lists(values(schema["items"], named), max_size=2)
        case "map":
            return st.dictionaries(st.text(max_size=4), values(schema["values"], named), max_size=2)
        case "enum":
            return st.sampled_from(schema["symbols"])
        case "record":
            return st.fixed_dictionaries({f["name"]: values(f["type"], named) for f in schema["fields"]})
        case dict() | list():
            return values(kind, named)
    plain: dict[str, st.SearchStrategy[Any]] = {
        "null": st.none(),
        "string": st.text(max_size=70),
        "bytes": st.binary(max_size=70),
        "boolean": st.booleans(),
        "int": st.integers(-(1 << 31), (1 << 31) - 1),
        "long": st.one_of(st.integers(-(1 << 63), (1 << 63) - 1), st.integers(0, 1 << 42)),
        "double": st.floats(allow_nan=False),
        "float": st.floats(width=32, allow_nan=False),
    }
    return plain[kind]


def records(text: str) -> st.SearchStrategy[Record]:
    """Records that fit a schema."""
    return values(json.loads(text), {})


@cache
def bodies(version: Any) -> list[bytes]:
    """Bodies of a schema's examples."""
    newest = version.version == bundled().latest(version.name).version
    files = [
        file.name.removesuffix(".json") for file in example_files(version.name, None if newest else version.version)
    ]
    schema = module._parse(version.text)
    return [by_fastavro(schema, load(version.name, name, None if newest else version.version)) for name in files]


def by_fastavro(schema: Any, record: Mapping[str, Any]) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, record)
    return out.getvalue()


@pytest.mark.parametrize("version", VERSIONS, ids=IDS)
@QUICK
@given(data=st.data())
def test_every_record_is_written_and_read_alike(version: Any, data: st.DataObject) -> None:
    schema = module._parse(version.text)
    write, read = compile_writer(schema), compile_reader(schema)
    record = data.draw(records(version.text))
    out = bytearray(b"head")
    write(record, out)
    body = by_fastavro(schema, record)
    assert bytes(out) == b"head" + body
    assert read(bytes(out), 4) == (fastavro.schemaless_reader(io.BytesIO(body), schema, None), len(out))


@pytest.mark.parametrize("version", VERSIONS, ids=IDS)
@QUICK
@given(data=st.data())
def test_every_damage_has_the_same_verdict(version: Any, data: st.DataObject) -> None:
    quick, slow = Codec(), Codec()
    value = bytearray(version.schema_id.to_bytes(5, "big"))
    value += data.draw(st.sampled_from(bodies(version)))
    for _ in range(data.draw(st.integers(0, 3))):
        value[data.draw(st.integers(5, len(value) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(value[: data.draw(st.integers(5, len(value)))]) + data.draw(st.binary(max_size=2))
    reader = slow._reader(cut)
    slow._readers[reader.schema_id] = reader._replace(read=None, write=None)
    for name in ("decode", "decode_strict"):
        assert _verdict(quick, name, cut) == _verdict(slow, name, cut)


def _verdict(codec: Codec, name: str, data: bytes) -> Any:
    try:
        return _comparable(getattr(codec, name)(data))
    except CodecError as error:
        return type(error), error.schema_id


def _comparable(value: Any) -> Any:
    """A value in which NaN equals NaN."""
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    if isinstance(value, dict):
        return {name: _comparable(member) for name, member in value.items()}
    return [_comparable(item) for item in value] if isinstance(value, list) else value


SCHEMA = parse_schema(
    {
        "type": "record",
        "name": "Node",
        "fields": [
            {"name": "count", "type": "int"},
            {"name": "size", "type": "long", "default": 7},
            {"name": "share", "type": "float", "default": 0.5},
            {"name": "on", "type": ["boolean", "null"]},
            {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["a", "b"]}},
            {"name": "last", "type": ["null", "Kind"]},
            {"name": "marks", "type": {"type": "map", "values": "string"}, "default": {}},
            {"name": "next", "type": ["null", "Node"]},
        ],
    }
)


def test_defaults_names_and_recursion_are_known() -> None:
    inner = {"count": -2, "on": True, "kind": "a", "last": "b", "marks": {"x": "y"}, "next": None}
    record = {"count": 1, "on": None, "kind": "b", "last": None, "next": inner}
    out = bytearray()
    compile_writer(SCHEMA)(record, out)
    assert bytes(out) == by_fastavro(SCHEMA, record)
    assert compile_reader(SCHEMA)(bytes(out), 0)[0] == fastavro.schemaless_reader(io.BytesIO(bytes(out)), SCHEMA, None)


@pytest.mark.parametrize("union", [["null", "int", "string"], ["int"], ["int", "string"]])
def test_what_no_record_of_ours_uses_is_not_compiled(union: list[str]) -> None:
    schema = parse_schema({"type": "record", "name": "R", "fields": [{"name": "x", "type": union}]})
    for make in (compile_writer, compile_reader):
        with pytest.raises(NotCompilable):
            make(schema)


@pytest.mark.parametrize(
    "change",
    [
        {"user_id": None},
        {"user_id": 5},
        {"user_id": "\ud800"},
        {"at": 1 << 63},
        {"job_ids": None},
        {"job_ids": [1]},
        {"job_ids": 5},
    ],
)
def test_a_record_that_does_not_fit_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidRecord):
        Codec().encode("user_closed", {"user_id": "u", "job_ids": ["a"], "at": 1, **change})
