"""The three stages as a worker's child runs them, on the README's prompt."""

import colorsys
import dataclasses
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from inference.geometry import field
from inference.geometry import mesh as meshes
from inference.geometry.primitives import PrimitiveSet, read_json
from inference.stages.base import SilentContext, Stage, StageCanceled, StageError, StageInput, StageOutput
from inference.stages.factory import load_stage
from inference.training.captions import KINDS
from inference.training.kit import Kit, Paint
from inference.training.words import PROPORTIONS

CRIMSON_HUE_DEGREES = 348
ARMCHAIR = next(kind for kind in KINDS if kind.names[0] == "armchair")


def files(outputs: dict[str, StageOutput]) -> dict[str, Path]:
    return {item.role: item.path for output in outputs.values() for item in output.artefacts}


def job(folder: Path, **changed: object) -> StageInput:
    values: dict[str, object] = {
        "job_id": "j",
        "stage": "generate",
        "attempt": 1,
        "prompt": "a mug",
        "seed": 1,
        "quality": "draft",
        "formats": ("glb",),
        "parameters": {},
        "inputs": {},
        "out_dir": folder,
    }
    return StageInput(**(values | changed))  # type: ignore[arg-type]


def test_the_preview_is_crimson(armchairs: list[dict[str, StageOutput]]) -> None:
    for outputs in armchairs:
        picture = np.asarray(Image.open(files(outputs)["preview"]).convert("RGB")) / 255
        flat = picture.reshape(-1, 3)
        coloured = flat[np.ptp(flat, axis=1) > 0.2]
        assert len(coloured) > 0.08 * len(flat)
        hues = np.array([colorsys.rgb_to_hsv(*pixel)[0] for pixel in coloured[::7]]) * 2 * np.pi
        mean = np.degrees(np.angle(np.exp(1j * hues).mean())) % 360
        assert abs((mean - CRIMSON_HUE_DEGREES + 180) % 360 - 180) < 20


def test_the_object_is_like_a_reference_armchair(armchairs: list[dict[str, StageOutput]]) -> None:
    axis = torch.linspace(-1, 1, 48)
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    references = [field.distance(_reference(seed), grid) < 0 for seed in range(16)]
    # Two references are this much alike: the model's objects have to be no worse than the spread of the kind.
    for outputs in armchairs:
        made = field.distance(read_json(files(outputs)["field"]), grid) < 0
        overlap = [float((made & other).sum() / (made | other).sum()) for other in references]
        assert max(overlap) > 0.6
        assert np.median(overlap) > 0.45


def _reference(seed: int) -> PrimitiveSet:
    rng = np.random.default_rng(seed)
    kit = Kit(rng, PROPORTIONS["tall"], {part: Paint(colour=(0.8, 0.1, 0.2)) for part in ARMCHAIR.parts})
    ARMCHAIR.build(kit)
    return PrimitiveSet(primitives=kit.fitted())


def test_the_glb_loads_with_uvs_normals_and_textures(armchairs: list[dict[str, StageOutput]]) -> None:
    for outputs in armchairs:
        content = io.BytesIO(files(outputs)["glb"].read_bytes())
        scene = trimesh.load_scene(content, file_type="glb", process=False)
        loaded = next(iter(scene.geometry.values()))
        assert len(loaded.faces) == outputs["texture"].figures["faces"]
        assert loaded.visual.uv.shape == (len(loaded.vertices), 2)
        assert loaded.vertex_normals.shape == loaded.vertices.shape
        assert np.isfinite(loaded.vertex_normals).all()
        material = loaded.visual.material
        assert material.baseColorTexture.size == (1024, 1024)
        assert material.metallicRoughnessTexture.size == (1024, 1024)
        assert material.normalTexture.size == (1024, 1024)
        assert np.abs(loaded.bounds).max() < 1.3


def test_figures_say_what_was_done(armchairs: list[dict[str, StageOutput]]) -> None:
    for outputs in armchairs:
        generated, light = outputs["generate"].figures, outputs["retopology"].figures
        assert generated["nearest_kind"] == "armchair"
        assert generated["low_confidence"] is False
        assert light["method"] == "quadric"
        assert light["watertight"] is True
        assert float(light["faces"]) <= 6600


def test_the_same_seed_gives_the_same_files(stages: list[Stage], tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        stages[0].run(job(tmp_path / name, prompt="a small lamp", seed=5), SilentContext())
    for name in ("field.json", "preview.png"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()
    one, other = (meshes.load(tmp_path / name / "mesh.npz") for name in ("one", "other"))
    np.testing.assert_array_equal(one.vertices, other.vertices)


def test_retopology_loads_no_torch() -> None:
    code = (
        "import sys; from inference.stages.factory import load_stage; load_stage('assembly', 'retopology');"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=120, check=False).returncode == 0


@pytest.mark.parametrize(
    "changed",
    [
        {"prompt": None},
        {"prompt": "  "},
        {"quality": "best"},
        {"parameters": {"resolution": "1e9"}},
        {"parameters": {"target_faces": "7"}},
    ],
)
def test_what_cannot_be_served_is_invalid(changed: dict[str, object], stages: list[Stage], tmp_path: Path) -> None:
    with pytest.raises(StageError) as caught:
        stages[0].run(job(tmp_path, **changed), SilentContext())
    assert caught.value.error_class == "invalid"


def test_missing_and_broken_inputs_are_told_apart(stages: list[Stage], tmp_path: Path) -> None:
    spoiled = tmp_path / "spoiled"
    spoiled.write_bytes(b"PK\x03\x04 no archive")
    inputs = {"mesh": spoiled, "lowpoly": spoiled, "field": spoiled}
    for stage in stages[1:]:
        with pytest.raises(StageError) as caught:
            stage.run(job(tmp_path), SilentContext())
        assert caught.value.error_class == "invalid"
        with pytest.raises(StageError) as caught:
            stage.run(job(tmp_path, inputs=inputs), SilentContext())
        assert caught.value.error_class == "permanent"


def test_unknown_stages_are_permanent_errors() -> None:
    for pipeline, stage in (("assembly", "paint"), ("other", "generate"), ("synthetic", "paint")):
        with pytest.raises(StageError) as caught:
            load_stage(pipeline, stage)
        assert caught.value.error_class == "permanent"


class _Canceling:
    def __init__(self, at: float) -> None:
        self.at = at
        self.told: list[float] = []

    def progress(self, fraction: float, message: str) -> None:
        self.told.append(fraction)
        if fraction >= self.at:
            raise StageCanceled


def test_a_cancel_ends_the_stage_at_its_next_word(stages: list[Stage], tmp_path: Path) -> None:
    with pytest.raises(StageCanceled):
        stages[0].run(job(tmp_path), _Canceling(0.3))
    assert not list(tmp_path.iterdir())


def test_progress_grows_to_one(stages: list[Stage], tmp_path: Path) -> None:
    inputs: dict[str, Path] = {}
    for stage in stages:
        folder = tmp_path / stage.name
        folder.mkdir()
        context = _Canceling(2.0)
        output = stage.run(dataclasses.replace(job(folder), stage=stage.name, inputs=dict(inputs)), context)
        inputs |= {item.role: item.path for item in output.artefacts}
        assert context.told == sorted(context.told)
        assert context.told[-1] == 1.0
    assert all(path.stat().st_size > 0 for path in inputs.values())
