"""The examples beside the schemas, as the records that our code handles."""

import json
from importlib.resources.abc import Traversable
from typing import Any

import pytest

from schemas.codec import Record
from schemas.registry import AVRO

RECORDS = sorted(folder.name for folder in AVRO.iterdir() if folder.is_dir())


def schema_text(record: str, version: int = 1) -> str:
    """The .avsc text of a record."""
    return (AVRO / record / f"v{version}.avsc").read_text()


def example_files(record: str) -> list[Traversable]:
    """The example files of a record."""
    return sorted((AVRO / record / "examples").iterdir(), key=lambda file: file.name)


def load(record: str, name: str) -> Record:
    """One example. Bytes stand in JSON as Avro defaults do: a string whose code points 0-255 are the bytes."""
    found: Record = json.loads((AVRO / record / "examples" / f"{name}.json").read_text())
    byte_fields = [f["name"] for f in json.loads(schema_text(record))["fields"] if "bytes" in _types(f["type"])]
    for field in byte_fields:
        if found[field] is not None:
            found[field] = found[field].encode("latin-1")
    return found


def _types(field_type: Any) -> list[Any]:
    return field_type if isinstance(field_type, list) else [field_type]


ALL = [(record, file.name.removesuffix(".json")) for record in RECORDS for file in example_files(record)]
each_example = pytest.mark.parametrize(("record", "name"), ALL, ids=["/".join(pair) for pair in ALL])
each_record = pytest.mark.parametrize("record", RECORDS)
