"""Surfaces that are closed, turned outwards and where the field says."""

import numpy as np
import pytest
import torch

from inference.geometry import field
from inference.geometry.mesh import Mesh, MeshInvalidError
from inference.geometry.primitives import Primitive, PrimitiveSet
from inference.geometry.surface import extract, sample_volume
from inference.training.captions import KINDS, draw


def volume(mesh: Mesh) -> float:
    """By the divergence theorem; positive when the faces look outwards."""
    centres = mesh.vertices[mesh.faces].mean(1)
    return float(np.einsum("fd,fd->", mesh.face_normals(), centres) / 6)


def ball(radius: float, **more: object) -> Primitive:
    values: dict[str, object] = {"kind": "ellipsoid", "centre": (0.0, 0.0, 0.0), "size": (radius,) * 3 + (0.0,)}
    return Primitive(**(values | more))  # type: ignore[arg-type]


def test_a_ball_has_its_volume_and_every_vertex_its_radius() -> None:
    mesh = extract(PrimitiveSet(primitives=(ball(0.8),)), 48)
    assert mesh.is_manifold()
    assert volume(mesh) == pytest.approx(4 / 3 * np.pi * 0.8**3, rel=5e-3)
    np.testing.assert_allclose(np.linalg.norm(mesh.vertices, axis=1), 0.8, atol=1e-4)


@pytest.mark.parametrize("kind", range(len(KINDS)))
def test_every_kind_of_object_is_closed(kind: int) -> None:
    primitives = draw(np.random.default_rng(100 + kind), kind).primitives
    mesh = extract(primitives, 64)
    assert mesh.is_watertight()
    assert volume(mesh) > 0
    distances = field.distance(primitives, torch.from_numpy(mesh.vertices)).abs()
    assert float(distances.quantile(0.99)) < 5e-3


def test_blocks_that_are_left_out_have_the_right_sign() -> None:
    primitives = draw(np.random.default_rng(3), 20).primitives
    sparse, origin, step = sample_volume(primitives, 40)
    axes = [torch.arange(count) * step + float(start) for count, start in zip(sparse.shape, origin, strict=True)]
    dense = field.distance(primitives, torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3).float())
    certain = dense.abs() > 1e-4
    assert bool(((dense < 0) == (torch.from_numpy(sparse).reshape(-1) < 0))[certain].all())


def test_vertices_carry_the_look_of_their_primitive() -> None:
    red = ball(0.4, centre=(-0.5, 0.0, 0.0), colour=(1.0, 0.0, 0.0), metallic=1.0)
    blue = ball(0.4, centre=(0.5, 0.0, 0.0), colour=(0.0, 0.0, 1.0), roughness=0.2)
    mesh = extract(PrimitiveSet(primitives=(red, blue)), 48)
    assert mesh.colours is not None
    assert mesh.surface is not None
    left = mesh.vertices[:, 0] < 0
    assert (mesh.colours[left] == (255, 0, 0)).all()
    assert (mesh.colours[~left] == (0, 0, 255)).all()
    assert (mesh.surface[~left] == (51, 0)).all()


def test_an_object_that_is_taken_away_whole_has_no_surface() -> None:
    with pytest.raises(MeshInvalidError, match="no surface"):
        extract(PrimitiveSet(primitives=(ball(0.3), ball(0.5, subtract=True))), 32)
