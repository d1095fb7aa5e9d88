"""Ids are for ever: the lock file, and the registry that serves it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import RegistryError
from schemas.registry import AVRO, LOCK, BundledRegistry, bundled, canonical_sha256, registry_from_url
from tests.unit.schemas.examples import RECORDS, each_record, schema_text, versions


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A copy of what is published, for a test to spoil: avro/ and ids.lock.json."""
    for record in RECORDS:
        folder = tmp_path / "avro" / record
        folder.mkdir(parents=True)
        for version in versions(record):
            (folder / f"v{version}.avsc").write_text(schema_text(record, version))
    (tmp_path / "ids.lock.json").write_text(LOCK.read_text())
    return tmp_path


def _open(published: Path) -> BundledRegistry:
    return BundledRegistry(published / "avro", published / "ids.lock.json")


def _edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_ids_are_unique_and_positive() -> None:
    ids = [entry["id"] for entry in json.loads(LOCK.read_text()).values()]
    assert len(set(ids)) == len(ids)
    assert min(ids) >= 1


def test_every_schema_file_is_locked_and_nothing_else() -> None:
    files = {
        f"{folder.name}/{file.name.removesuffix('.avsc')}"
        for folder in AVRO.iterdir()
        for file in folder.iterdir()
        if file.name.endswith(".avsc")
    }
    assert set(json.loads(LOCK.read_text())) == files


@each_record
def test_latest_and_by_id_agree(record: str) -> None:
    version = bundled().latest(record)
    assert version.name == record
    assert bundled().by_id(version.schema_id) == version
    assert version in bundled().all()
    assert json.loads(version.text)["name"] == json.loads(schema_text(record, version.version))["name"]


def test_all_is_sorted_by_id() -> None:
    ids = [version.schema_id for version in bundled().all()]
    assert ids == sorted(ids)
    assert len(ids) == len(json.loads(LOCK.read_text()))


def test_what_nobody_published() -> None:
    assert bundled().by_id(9999) is None
    with pytest.raises(RegistryError, match="'missing' is locked; known: admission_answer"):
        bundled().latest("missing")


def test_an_unspoilt_copy_opens(published: Path) -> None:
    assert _open(published).all() == bundled().all()


def test_a_changed_schema_is_refused(published: Path) -> None:
    path = published / "avro" / "command" / "v1.avsc"
    fields = json.loads(path.read_text())["fields"]
    _edit(path, fields=fields[:-1])
    with pytest.raises(RegistryError, match=r"command/v1 was published and has changed since; add v2\.avsc instead"):
        _open(published)


def test_another_order_of_fields_is_a_change(published: Path) -> None:
    path = published / "avro" / "command" / "v1.avsc"
    _edit(path, fields=json.loads(path.read_text())["fields"][::-1])
    with pytest.raises(RegistryError, match="command/v1"):
        _open(published)


def test_better_documentation_is_no_change(published: Path) -> None:
    path = published / "avro" / "command" / "v1.avsc"
    _edit(path, doc="Said better.")
    assert _open(published).latest("command").schema_id == bundled().latest("command").schema_id


def test_a_further_version_is_written_and_the_earlier_ones_still_read(published: Path) -> None:
    newest = bundled().latest("command")
    first = json.loads(newest.text)
    extra = {"name": "note", "type": ["null", "string"], "doc": "New.", "default": None}
    text = json.dumps(first | {"fields": [*first["fields"], extra]})
    (published / "avro" / "command" / f"v{newest.version + 1}.avsc").write_text(text)
    entry = {"id": 501, "sha256": canonical_sha256(text)}
    _edit(published / "ids.lock.json", **{f"command/v{newest.version + 1}": entry})
    registry = _open(published)
    assert (registry.latest("command").version, registry.latest("command").schema_id) == (newest.version + 1, 501)
    assert registry.newest("command") == registry.latest("command")
    old = registry.by_id(newest.schema_id)
    assert old is not None
    assert old.version == newest.version


def test_a_locked_schema_that_is_gone_is_refused(published: Path) -> None:
    shutil.rmtree(published / "avro" / "command")
    with pytest.raises(FileNotFoundError, match="command"):
        _open(published)


def test_without_a_url_the_bundled_ids_serve() -> None:
    assert registry_from_url(None) is bundled()
    assert registry_from_url("") is bundled()
