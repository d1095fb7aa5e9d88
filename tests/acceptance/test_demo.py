"""From a prompt to a file: what one run of the demo leaves behind, on disk and on the screen."""

import colorsys
import json
import re
from typing import Any

import numpy as np
import psutil
import pytest
import trimesh
from PIL import Image

from schemas.pipelines import PIPELINES
from tests.acceptance.conftest import DEMO_SECONDS, DemoRun
from tests.support.gltf import validate

CRIMSON_HUE_DEGREES = 348.0
STAGES = [stage.name for stage in PIPELINES["assembly"].stages]

pytestmark = pytest.mark.timeout(DEMO_SECONDS + 100)


def _mesh(demo_run: DemoRun) -> Any:
    """The file's one mesh, as trimesh reads it; its visuals have no types to speak of."""
    (mesh,) = trimesh.load_scene(demo_run.glb).geometry.values()
    return mesh


def test_it_succeeds_and_says_nothing_on_standard_error(demo_run: DemoRun) -> None:
    assert demo_run.exit_code == 0, demo_run.stderr + demo_run.stdout
    assert demo_run.stderr == ""


def test_it_names_the_files_that_are_there(demo_run: DemoRun) -> None:
    assert f"{demo_run.out.name}/{demo_run.glb.name}" in demo_run.stdout
    assert f"{demo_run.out.name}/{demo_run.preview.name}" in demo_run.stdout
    assert {path.name for path in demo_run.out.iterdir()} == {demo_run.glb.name, demo_run.preview.name}


def test_the_khronos_validator_finds_nothing_wrong(demo_run: DemoRun) -> None:
    report = validate(demo_run.glb)
    assert report["issues"]["numErrors"] == 0, report["issues"]["messages"]
    assert report["issues"]["numWarnings"] == 0, report["issues"]["messages"]
    assert report["info"]["hasTextures"]


def test_the_model_is_a_textured_mesh_that_stands_upright(demo_run: DemoRun) -> None:
    mesh = _mesh(demo_run)
    assert len(mesh.faces) > 500
    assert np.isfinite(mesh.vertices).all()
    assert np.allclose(np.linalg.norm(mesh.vertex_normals, axis=1), 1.0, atol=1e-3)
    assert mesh.visual.uv.shape == (len(mesh.vertices), 2)
    assert mesh.visual.material.baseColorTexture.size == (1024, 1024)
    width, height, depth = mesh.extents
    assert height > 0.95 * max(width, depth)  # 1.3 on the average over seeds, 1.1 the least of twenty


def test_the_preview_shows_something_crimson(demo_run: DemoRun) -> None:
    picture = np.asarray(Image.open(demo_run.preview).convert("RGB")).reshape(-1, 3) / 255
    foreground = picture[np.ptp(picture, axis=1) > 0.2]  # the paper is grey
    assert 0.08 < len(foreground) / len(picture) < 0.8
    hues = np.array([colorsys.rgb_to_hsv(*pixel)[0] for pixel in foreground[::7]]) * 2 * np.pi
    mean = np.degrees(np.angle(np.exp(1j * hues).mean())) % 360
    assert abs((mean - CRIMSON_HUE_DEGREES + 180) % 360 - 180) < 20


def test_the_texture_is_crimson_too(demo_run: DemoRun) -> None:
    mesh = _mesh(demo_run)
    colours = np.asarray(mesh.visual.material.baseColorTexture.convert("RGB")).reshape(-1, 3)
    red = (colours[:, 0] > 100) & (colours[:, 1] < 90) & (colours[:, 2] < 110)
    assert red.mean() > 0.15


def test_it_prints_each_stages_figures_from_clickhouse(demo_run: DemoRun) -> None:
    table = demo_run.stdout[demo_run.stdout.index("From ClickHouse") :]
    seconds, dollars = r"(\d+\.\d\d) s", r"\$(\d+\.\d{6})"
    runs, costs = [], []
    for stage in STAGES:
        found = re.search(rf"{stage}\W+1\W+{seconds}\W+{seconds}\W+{dollars}", table)
        assert found, f"{stage} is not in {table}"
        runs.append(float(found[2]))
        assert float(found[3]) > 0
        costs.append(float(found[3]))
    whole = re.search(rf"end to end\W+{seconds}\W+{dollars}", table)
    assert whole
    assert float(whole[1]) >= sum(runs) - 0.1
    assert float(whole[2]) == pytest.approx(sum(costs), abs=2e-6)
    order = [table.index(name) for name in (*STAGES, "end to end")]
    assert order == sorted(order)


def test_it_shows_one_bar_that_ends_at_a_hundred(demo_run: DemoRun) -> None:
    assert re.search(r"succeeded\W.*100%", demo_run.stdout)


def test_it_stops_what_it_started(demo_run: DemoRun) -> None:
    assert "Stack: stopped" in demo_run.stdout
    state = json.loads((demo_run.stack_dir / "stack.json").read_text())
    assert state["state"] == "stopped"
    for role in state["roles"]:
        if role["pid"] is not None and psutil.pid_exists(role["pid"]):
            assert str(demo_run.stack_dir) not in " ".join(psutil.Process(role["pid"]).cmdline())


def test_its_logs_hold_neither_the_prompt_nor_the_key(demo_run: DemoRun) -> None:
    key = (demo_run.stack_dir / "secrets" / "local.key").read_text().strip()
    logs = {file.name: file.read_text(errors="replace") for file in (demo_run.stack_dir / "logs").iterdir()}
    assert {"broker.log", "gateway.log", "streams.log", "worker-0.log"} <= set(logs)
    for name, text in logs.items():
        assert "crimson" not in text, name
        assert key not in text, name
