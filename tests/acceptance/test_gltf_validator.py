"""What the built-in model makes is glTF by the word of its authors' own validator."""

from pathlib import Path

import pytest

from inference.stages.factory import STAGES, load_stage
from inference.training.sheet import run_chain
from tests.support.gltf import validate


@pytest.fixture(scope="module")
def glb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    stages = [load_stage("assembly", name) for name in STAGES]
    outputs = run_chain(stages, "a blue rocket with red fins", 1, tmp_path_factory.mktemp("rocket") / "job")
    return next(item.path for item in outputs["texture"].artefacts if item.role == "glb")


def test_the_validator_finds_nothing(glb: Path) -> None:
    issues = validate(glb)["issues"]
    assert issues["messages"] == []
    assert issues["numErrors"] == issues["numWarnings"] == 0


def test_the_file_has_all_that_a_viewer_wants(glb: Path) -> None:
    info = validate(glb)["info"]
    assert info["hasTextures"]
    assert info["materialCount"] == 1
    assert len(info["resources"]) == 4  # the binary chunk and three images
    assert info["totalTriangleCount"] > 500


def test_the_validator_is_no_rubber_stamp(glb: Path, tmp_path: Path) -> None:
    spoiled = tmp_path / "spoiled.glb"
    spoiled.write_bytes(glb.read_bytes().replace(b'"VEC4"', b'"VEC3"'))
    assert validate(spoiled)["issues"]["numErrors"] > 0
    (tmp_path / "text.glb").write_text("no glTF at all")
    with pytest.raises(RuntimeError):
        validate(tmp_path / "text.glb")
