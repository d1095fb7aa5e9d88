"""Files between a real object store in a folder and a stage."""

import hashlib
import json
from pathlib import Path

import pytest

from inference.artefacts import SMALL_BYTES, ArtefactError, Scratch, fetch_inputs, store_results
from inference.channel import MadeArtefact
from inference.work import Artefact
from streams.objects import ObjectStore
from tests.unit.worker.items import item


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(f"file://{tmp_path}/objects")


def put(store: ObjectStore, key: str, data: bytes, role: str = "mesh") -> Artefact:
    return Artefact(
        role=role, uri=store.put(key, data), sha256=hashlib.sha256(data).hexdigest(), bytes=len(data), media_type="x/y"
    )


def test_the_newest_artefact_of_a_role_is_fetched(store: ObjectStore, tmp_path: Path) -> None:
    artefacts = [put(store, "j/a", b"old"), put(store, "j/b", b"field", "field"), put(store, "j/c", b"new")]
    files = fetch_inputs(store, artefacts, tmp_path)
    assert {role: path.read_bytes() for role, path in files.items()} == {"mesh": b"new", "field": b"field"}


@pytest.mark.parametrize(
    ("change", "error_class"),
    [
        ({"sha256": "0" * 64}, "transient"),
        ({"bytes": 4}, "transient"),
        ({"uri": "file:///elsewhere/x"}, "invalid"),
        ({"uri": "{store}/../x"}, "invalid"),
        ({"uri": "{store}/a//x"}, "invalid"),
    ],
)
def test_a_wrong_input_is_not_handed_on(
    store: ObjectStore, tmp_path: Path, change: dict[str, str | int], error_class: str
) -> None:
    good = put(store, "j/a", b"abc")
    change = {
        name: str(value).format(store=store.base_url) if name == "uri" else value for name, value in change.items()
    }
    wrong = Artefact(**{**good.record(), **change})
    with pytest.raises(ArtefactError) as caught:
        fetch_inputs(store, [wrong], tmp_path)
    assert caught.value.error_class == error_class


def test_a_missing_input_may_come_back(store: ObjectStore, tmp_path: Path) -> None:
    gone = put(store, "j/a", b"abc")
    store.delete("j/a")
    with pytest.raises(ArtefactError) as caught:
        fetch_inputs(store, [gone], tmp_path)
    assert caught.value.error_class == "transient"


def test_results_are_stored_by_content_and_listed_in_the_manifest(store: ObjectStore, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(b"{}")
    earlier = put(store, "j/a", b"abc")
    work = item("j", "texture", 2, artefacts=[earlier.record()])
    made = [MadeArtefact(role="result", path=str(path), media_type="application/json")]
    (kept,) = store_results(store, work, made, {"faces": 12}, tmp_path)
    digest = hashlib.sha256(b"{}").hexdigest()
    assert (kept.role, kept.sha256, kept.bytes) == ("result", digest, 2)
    assert store.key_of(kept.uri) == f"j/texture/2/{digest}"
    assert json.loads(store.get("j/texture/2/manifest.json")) == {
        "job_id": "j",
        "stage": "texture",
        "attempt": 2,
        "inputs": [earlier.record()],
        "artefacts": [kept.record()],
        "figures": {"faces": 12},
    }


def test_large_files_are_stored_alike(store: ObjectStore, tmp_path: Path) -> None:
    path = tmp_path / "mesh.bin"
    path.write_bytes(bytes(SMALL_BYTES + 1))
    (kept,) = store_results(store, item(), [MadeArtefact(role="mesh", path=str(path), media_type="x/y")], {}, tmp_path)
    digest = hashlib.sha256(bytes(SMALL_BYTES + 1)).hexdigest()
    assert (kept.sha256, kept.bytes, kept.media_type) == (digest, SMALL_BYTES + 1, "x/y")
    assert store.key_of(kept.uri) == f"job-1/generate/1/{digest}"


def test_a_job_id_does_not_lead_out_of_the_store(store: ObjectStore, tmp_path: Path) -> None:
    made = [MadeArtefact(role="result", path="/nowhere/result.json", media_type="application/json", data=b"{}")]
    with pytest.raises(ArtefactError) as caught:
        store_results(store, item("../../x"), made, {}, tmp_path)
    assert caught.value.error_class == "invalid"


@pytest.mark.parametrize("name", ["../elsewhere", "absent"])
def test_a_file_that_is_not_the_stages_own_is_its_defect(store: ObjectStore, tmp_path: Path, name: str) -> None:
    out_dir = tmp_path / "out"
    out_dir.mkdir()
    (tmp_path / "elsewhere").write_bytes(b"secret")
    made = [MadeArtefact(role="result", path=str(out_dir / name), media_type="x/y")]
    with pytest.raises(ArtefactError) as caught:
        store_results(store, item(), made, {}, out_dir)
    assert caught.value.error_class == "crash"


def test_bytes_of_a_stage_need_no_file(store: ObjectStore, tmp_path: Path) -> None:
    made = [MadeArtefact(role="result", path="/nowhere/result.json", media_type="application/json", data=b"{}")]
    (kept,) = store_results(store, item(), made, {}, tmp_path)
    assert (kept.sha256, kept.bytes) == (hashlib.sha256(b"{}").hexdigest(), 2)
    assert store.get(store.key_of(kept.uri)) == b"{}"


def test_a_stage_without_files_leaves_no_manifest(store: ObjectStore, tmp_path: Path) -> None:
    assert store_results(store, item(), [], {"seconds": 0.0}, tmp_path) == ()
    assert store.keys(item().job_id) == []


def test_scratch_leaves_nothing_behind(tmp_path: Path) -> None:
    root = tmp_path / "slot-1"
    (root / "7").mkdir(parents=True)  # a killed predecessor's
    scratch = Scratch(root)
    assert not (root / "7").exists()
    place = scratch.take()
    (place.inputs / "0").write_bytes(b"x")
    (place.results / "folder").mkdir()
    (place.results / "folder" / "file").write_bytes(b"x")
    (place.results / "link").symlink_to(tmp_path)
    scratch.give_back(place)
    assert [list(folder.iterdir()) for folder in (place.inputs, place.results)] == [[], []]
    scratch.close()
    assert not root.exists()
    assert tmp_path.exists()


def test_places_are_each_runs_own_and_used_again(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path / "slot-1")
    first, second = scratch.take(), scratch.take()
    assert len({first.inputs, first.results, second.inputs, second.results}) == 4
    scratch.give_back(first)
    assert scratch.take() == first


def test_a_new_childs_folders_are_others(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path / "slot-1")
    old = scratch.take()
    (old.results / "late").write_bytes(b"x")
    scratch.renew()
    assert not old.results.exists()
    scratch.give_back(old)
    new = scratch.take()
    assert new.results != old.results
    assert list(new.results.iterdir()) == []


def test_two_lives_of_a_slot_share_no_folder(tmp_path: Path) -> None:
    older = Scratch(tmp_path / "slot-1")
    place = older.take()
    newer = Scratch(tmp_path / "slot-1")
    fresh = newer.take()
    assert place.results != fresh.results
    assert not place.results.exists()
    older.give_back(place)
    older.renew()
    older.close()
    assert fresh.results.exists()
