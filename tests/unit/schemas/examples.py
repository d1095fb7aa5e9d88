"""The examples beside the schemas, as the records that our code handles."""

import json
from importlib.resources.abc import Traversable
from typing import Any

import pytest

from schemas.codec import Record
from schemas.registry import AVRO, bundled

RECORDS = sorted(folder.name for folder in AVRO.iterdir() if folder.is_dir())


def schema_text(record: str, version: int | None = None) -> str:
    """The .avsc text of a record, of its newest version unless another is named."""
    version = version or bundled().latest(record).version
    return (AVRO / record / f"v{version}.avsc").read_text()


def versions(record: str) -> list[int]:
    """The versions of a record, oldest first."""
    return sorted(version.version for version in bundled().all() if version.name == record)


def example_files(record: str, version: int | None = None) -> list[Traversable]:
    """The example files of a record; those of an older version lie in a folder of its name."""
    folder = AVRO / record / "examples"
    if version is not None:
        folder = folder / f"v{version}"
    return sorted((file for file in folder.iterdir() if file.name.endswith(".json")), key=lambda file: file.name)


def load(record: str, name: str, version: int | None = None) -> Record:
    """One example. Bytes stand in JSON as Avro defaults do: a string whose code points 0-255 are the bytes."""
    folder = AVRO / record / "examples"
    if version is not None:
        folder = folder / f"v{version}"
    found: Record = _with_bytes(
        json.loads((folder / f"{name}.json").read_text()), json.loads(schema_text(record, version))
    )
    return found


def _with_bytes(value: Any, node: Any) -> Any:
    """A value read from JSON as Avro's reader gives it, by its schema."""
    if isinstance(node, list):
        return None if value is None else _with_bytes(value, node[1])
    if node == "bytes":
        return value.encode("latin-1")
    if isinstance(node, dict) and node["type"] == "array":
        return [_with_bytes(item, node["items"]) for item in value]
    if isinstance(node, dict) and node["type"] == "record":
        types = {field["name"]: field["type"] for field in node["fields"]}
        return {name: _with_bytes(member, types.get(name)) for name, member in value.items()}
    return value


ALL = [(record, file.name.removesuffix(".json")) for record in RECORDS for file in example_files(record)]
# (record, version, name) of every example that is written in an older version.
OLD = [
    (record, version, file.name.removesuffix(".json"))
    for record in RECORDS
    for version in versions(record)[:-1]
    for file in example_files(record, version)
]
each_example = pytest.mark.parametrize(("record", "name"), ALL, ids=["/".join(pair) for pair in ALL])
each_old_example = pytest.mark.parametrize(
    ("record", "version", "name"), OLD, ids=[f"{record}/v{version}/{name}" for record, version, name in OLD]
)
each_record = pytest.mark.parametrize("record", RECORDS)
