"""Cleaning and simplification, above all of meshes that are broken."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from inference.geometry import mesh as meshes
from inference.geometry.cleaning import clean
from inference.geometry.mesh import Mesh, MeshInvalidError, without_folds
from inference.geometry.primitives import Primitive, PrimitiveSet
from inference.geometry.simplify import SimplifyLimits, hausdorff, simplify
from inference.geometry.surface import extract

TORUS = PrimitiveSet(primitives=(Primitive(kind="torus", centre=(0.0, 0.0, 0.0), size=(0.6, 0.25, 0.0, 0.0)),))


@pytest.fixture(scope="module")
def torus() -> Mesh:
    return extract(TORUS, 48)


def test_a_good_mesh_is_simplified_and_stays_closed(torus: Mesh) -> None:
    made = simplify(torus, 1500)
    assert made.method == "quadric"
    assert 0 < len(made.mesh.faces) <= 1600
    assert made.mesh.is_watertight()
    assert 0 < made.hausdorff < 0.02


def test_the_same_mesh_gives_the_same_result(torus: Mesh) -> None:
    one, other = simplify(torus, 1000), simplify(torus, 1000)
    np.testing.assert_array_equal(one.mesh.vertices, other.mesh.vertices)
    np.testing.assert_array_equal(one.mesh.faces, other.mesh.faces)


def test_a_small_mesh_goes_on_unchanged(torus: Mesh) -> None:
    made = simplify(torus, len(torus.faces))
    assert (made.method, made.reason) == ("unchanged", "small enough")
    np.testing.assert_array_equal(made.mesh.faces, torus.faces)


def _with(mesh: Mesh, **changed: object) -> Mesh:
    return dataclasses.replace(mesh, **changed)  # type: ignore[arg-type]


def test_broken_meshes_are_refused_with_a_reason(torus: Mesh) -> None:
    holed = torus.vertices.copy()
    holed[7, 1] = np.nan
    far = torus.faces.copy()
    far[3, 0] = len(torus.vertices)
    negative = torus.faces.copy()
    negative[3, 0] = -1
    line = np.repeat(np.arange(30, dtype=np.int32)[:, None], 3, 1)
    cases = {
        "not finite": _with(torus, vertices=holed),
        "does not exist": _with(torus, faces=far),
        "a face names": _with(torus, faces=negative),
        "0 faces": _with(torus, faces=np.zeros((0, 3), np.int32)),
        "nothing is left": _with(torus, faces=line),
        "shape": _with(torus, faces=np.zeros((4, 4), np.int32)),
        "colours for": _with(torus, colours=np.zeros((3, 3), np.uint8)),
    }
    for reason, broken in cases.items():
        with pytest.raises(MeshInvalidError, match=reason):
            simplify(broken, 100)


def test_degenerate_and_repeated_faces_are_cleaned_away(torus: Mesh) -> None:
    spoiled = np.concatenate((torus.faces, torus.faces[:50], torus.faces[:80, [0, 0, 1]]))
    made = simplify(_with(torus, faces=spoiled), 1500)
    assert made.method == "quadric"
    assert made.mesh.is_watertight()


def test_a_mesh_full_of_holes_is_simplified_too(torus: Mesh) -> None:
    kept = np.random.default_rng(0).random(len(torus.faces)) > 0.05
    made = simplify(_with(torus, faces=torus.faces[kept]), 2000)
    assert np.isfinite(made.mesh.vertices).all()
    assert len(made.mesh.faces) > 0


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (SimplifyLimits(memory_bytes=80 << 20), "ended with"),
        (SimplifyLimits(timeout_seconds=0.02), "no result within"),
        (SimplifyLimits(distance_share=1e-9), "off by"),
    ],
)
def test_a_child_that_fails_leaves_the_input(torus: Mesh, limits: SimplifyLimits, reason: str) -> None:
    made = simplify(torus, 1500, limits)
    assert made.method == "unchanged"
    assert reason in made.reason
    np.testing.assert_array_equal(made.mesh.faces, torus.faces)


def test_specks_are_dropped_and_parts_are_kept() -> None:
    far = Primitive(kind="ellipsoid", centre=(1.1, 0.0, 0.0), size=(0.02, 0.02, 0.02, 0.0))
    near = Primitive(kind="ellipsoid", centre=(0.0, 0.0, 0.0), size=(0.2, 0.2, 0.2, 0.0))
    mesh = extract(PrimitiveSet(primitives=(*TORUS.primitives, near, far)), 64)
    assert float(mesh.vertices[:, 0].max()) < 1.0
    assert (np.linalg.norm(mesh.vertices, axis=1) < 0.25).any()


def test_merging_closes_a_mesh_of_separate_triangles(torus: Mesh) -> None:
    soup = Mesh(
        vertices=torus.vertices[torus.faces].reshape(-1, 3),
        faces=np.arange(3 * len(torus.faces), dtype=np.int32).reshape(-1, 3),
    )
    assert not soup.is_watertight()
    assert clean(soup).is_watertight()


def test_faces_that_enclose_nothing_go_in_pairs() -> None:
    faces = np.array([[0, 1, 2], [1, 0, 2], [0, 1, 3], [2, 0, 1]], np.int32)
    np.testing.assert_array_equal(without_folds(faces), [[0, 1, 3]])


def test_hausdorff_sees_a_shift(torus: Mesh) -> None:
    moved = _with(torus, vertices=torus.vertices + np.float32(0.1) * np.array([0, 1, 0], np.float32))
    assert hausdorff(torus, torus) < 1e-3
    assert hausdorff(torus, moved) == pytest.approx(0.1, abs=0.02)


def test_mesh_files_come_back_or_are_refused(torus: Mesh, tmp_path: Path) -> None:
    meshes.save(torus, tmp_path / "good.npz")
    again = meshes.load(tmp_path / "good.npz")
    np.testing.assert_array_equal(again.vertices, torus.vertices)
    assert again.colours is not None
    (tmp_path / "text.npz").write_text("no archive")
    np.savez(tmp_path / "half.npz", vertices=torus.vertices)
    np.savez(tmp_path / "pickled.npz", vertices=np.array([object()]), faces=torus.faces)
    np.savez(tmp_path / "wrap.npz", vertices=torus.vertices, faces=torus.faces.astype(np.int64) + 2**32)
    for name in ("text", "half", "pickled", "wrap", "missing"):
        with pytest.raises(MeshInvalidError):
            meshes.load(tmp_path / f"{name}.npz")
