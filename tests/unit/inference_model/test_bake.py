"""Rasterising, unwrapping, baking and the preview."""

import numpy as np
import pytest

from inference.geometry import preview
from inference.geometry.bake import bake, rasterise, with_exact_normals
from inference.geometry.mesh import Mesh, MeshInvalidError
from inference.geometry.primitives import Primitive, PrimitiveSet
from inference.geometry.simplify import simplify
from inference.geometry.surface import extract
from inference.geometry.unwrap import Unwrapped, unwrap

RED, BLUE = (200 / 255, 20 / 255, 40 / 255), (20 / 255, 60 / 255, 1.0)
PAIR = PrimitiveSet(
    primitives=(
        Primitive(kind="ellipsoid", centre=(0, 0.3, 0), size=(0.5, 0.5, 0.5, 0), colour=RED, roughness=0.2),
        Primitive(kind="box", centre=(0, -0.4, 0), size=(0.6, 0.3, 0.6, 0.02), colour=BLUE, metallic=1.0),
    )
)


@pytest.fixture(scope="module")
def pair() -> Unwrapped:
    light = simplify(extract(PAIR, 64), 2000).mesh
    return with_exact_normals(PAIR, unwrap(light, 256))


def test_two_triangles_cover_a_square_once() -> None:
    uvs = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
    texels = rasterise(uvs, np.array([[0, 1, 2], [0, 2, 3]], np.int32), 16)
    assert sorted(texels.place) == list(range(256))
    np.testing.assert_allclose(texels.weights.sum(1), 1.0, atol=1e-6)
    corners = uvs[np.array([[0, 1, 2], [0, 2, 3]])[texels.face]]
    centre = np.stack((texels.place % 16, texels.place // 16), 1) + 0.5
    np.testing.assert_allclose(np.einsum("nc,ncd->nd", texels.weights, corners) * 16, centre, atol=1e-4)


def test_neither_orientation_nor_a_degenerate_triangle_disturbs() -> None:
    uvs = np.array([[0.1, 0.1], [0.9, 0.1], [0.5, 0.9], [0.5, 0.5]], np.float32)
    forward = rasterise(uvs, np.array([[0, 1, 2]], np.int32), 64)
    mixed = rasterise(uvs, np.array([[2, 1, 0], [3, 3, 3], [0, 3, 2]], np.int32)[:2], 64)
    area = 0.5 * 0.8 * 0.8 * 64 * 64
    assert area < len(forward.place) < area * 1.15
    assert set(forward.place) <= set(mixed.place)
    assert np.isfinite(mixed.weights).all()


def test_an_unwrapped_mesh_has_a_frame_at_every_vertex(pair: Unwrapped) -> None:
    assert pair.uvs.min() >= 0
    assert pair.uvs.max() <= 1
    np.testing.assert_allclose(np.linalg.norm(pair.normals, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(pair.tangents[:, :3], axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(np.einsum("nd,nd->n", pair.normals, pair.tangents[:, :3]), 0, atol=1e-5)
    assert set(np.unique(pair.tangents[:, 3])) <= {-1.0, 1.0}


def test_every_part_gets_its_own_colour_and_material(pair: Unwrapped) -> None:
    textures = bake(PAIR, pair, 256)
    centres = pair.vertices[pair.faces].mean(1)
    uv = pair.uvs[pair.faces].mean(1)
    column, row = (np.clip((uv * 256).astype(int), 0, 255)[:, axis] for axis in (0, 1))
    high, low = centres[:, 1] > 0.1, centres[:, 1] < -0.2
    assert (textures.base_colour[row, column][high] == (200, 20, 40)).all(1).mean() > 0.99
    assert (textures.base_colour[row, column][low] == (20, 60, 255)).all(1).mean() > 0.99
    orm = textures.occlusion_roughness_metallic[row, column]
    assert (orm[high] == (255, 51, 0)).all(1).mean() > 0.99
    assert (orm[low] == (255, 153, 255)).all(1).mean() > 0.99


def test_the_normal_map_gives_the_exact_normals_back(pair: Unwrapped) -> None:
    textures = bake(PAIR, pair, 256)
    texels = rasterise(pair.uvs, pair.faces, 256)
    corners = pair.faces[texels.face]
    at = np.einsum("nc,ncd->nd", texels.weights, pair.vertices[corners])
    n = np.einsum("nc,ncd->nd", texels.weights, pair.normals[corners])
    t = np.einsum("nc,ncd->nd", texels.weights, pair.tangents[corners, :3])
    n, t = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (n, t))
    b = np.cross(n, t) * pair.tangents[corners[:, 0], 3:]
    local = textures.normal.reshape(-1, 3)[texels.place] / 255 * 2 - 1
    shown = local[:, :1] * t + local[:, 1:2] * b + local[:, 2:] * n
    exact = at - (0, 0.3, 0)
    round_part = (np.linalg.norm(exact, axis=1) < 0.52) & (at[:, 1] > 0.15)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    cosine = np.einsum("nd,nd->n", shown, exact)[round_part]
    assert np.quantile(cosine, 0.01) > np.cos(np.radians(3))


def test_textures_have_no_holes(pair: Unwrapped) -> None:
    textures = bake(PAIR, pair, 128)
    assert (textures.normal[..., 2] > 100).all()
    assert (textures.occlusion_roughness_metallic[..., 0] == 255).all()


def test_a_broken_mesh_is_not_unwrapped() -> None:
    with pytest.raises(MeshInvalidError):
        unwrap(Mesh(vertices=np.zeros((3, 3), np.float32), faces=np.array([[0, 1, 9]], np.int32)), 64)


def test_a_preview_shows_the_object_in_its_colours(pair: Unwrapped) -> None:
    textured = preview.render(pair, bake(PAIR, pair, 256), 96)
    plain = preview.render(extract(PAIR, 64), None, 96)
    for picture in (textured, plain):
        assert picture.shape == (96, 96, 3)
        assert abs(int(picture[0, 0].max()) - int(picture[0, 0].min())) < 3  # grey paper
        middle = picture[30, 48].astype(int)
        assert middle[0] > 2 * middle[1]  # the red ball
    assert np.abs(textured.astype(int) - plain).mean() < 6


def test_a_preview_is_the_same_every_time(pair: Unwrapped) -> None:
    textures = bake(PAIR, pair, 128)
    np.testing.assert_array_equal(preview.render(pair, textures, 64), preview.render(pair, textures, 64))
