"""Textures from the field: base colour, occlusion-roughness-metallic and tangent-space normals.

Every covered texel asks the field which primitive's surface is nearest to its point on the low-polygon mesh,
and writes down that one's look and exact normal. So seams between parts are as sharp as the texture allows,
and edges that the simplification rounded off come back in the normal map.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import distance_transform_edt

from inference.geometry import field
from inference.geometry.mesh import Bytes, Floats, Ints
from inference.geometry.primitives import PrimitiveSet
from inference.geometry.unwrap import Unwrapped, gather_normals, vertex_tangents

_Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Textures:
    """Three square images (S, S, 3) of bytes."""

    base_colour: Bytes
    """sRGB."""
    occlusion_roughness_metallic: Bytes
    """Linear: R = 255 (no occlusion is baked), G roughness, B metallic."""
    normal: Bytes
    """Linear: tangent space, +Y up in the image, as glTF has it."""


@dataclass(frozen=True, kw_only=True)
class Texels:
    """Texels that triangles cover."""

    place: Ints
    """(N,): row x size + column."""
    face: Ints
    """(N,)"""
    weights: Floats
    """(N, 3): barycentric coordinates."""


def rasterise(uvs: Floats, faces: Ints, size: int) -> Texels:
    """The texels whose centres lie in a triangle, or within half a texel of one, each once.

    By scan lines: for every row of a triangle the three edges give an interval of columns.
    """
    corners = uvs[faces].astype(np.float64) * size - 0.5  # (F, 3, 2), texel centres are whole numbers
    slope_x, slope_y, at_zero, slack = _edges(corners)
    low = np.clip(np.floor(corners[:, :, 1].min(1)), 0, size - 1).astype(np.int64)
    high = np.clip(np.ceil(corners[:, :, 1].max(1)), 0, size - 1).astype(np.int64)
    line_face, y = _expand(low, high - low + 1)  # one entry a triangle and row
    left, right = np.zeros(len(y)), np.full(len(y), size - 1.0)
    for edge in range(3):
        slope = slope_x[line_face, edge]
        # weight >= -slack, solved for x
        bound = -slack[line_face, edge] - at_zero[line_face, edge] - slope_y[line_face, edge] * y
        with np.errstate(divide="ignore", invalid="ignore"):
            crossing = bound / slope
        left = np.where(slope > 0, np.maximum(left, crossing), left)
        right = np.where(slope < 0, np.minimum(right, crossing), right)
        right = np.where((slope == 0) & (bound > 0), -1.0, right)
    first = np.ceil(left).astype(np.int64)
    line, x = _expand(first, np.maximum(np.floor(right).astype(np.int64) - first + 1, 0))
    face, y = line_face[line], y[line]
    weights = slope_x[face] * x[:, None] + slope_y[face] * y[:, None] + at_zero[face]
    place = y * size + x
    inside = (weights >= 0.0).all(1)
    winner = np.full(size * size, -1, np.int64)
    winner[place[~inside]] = np.flatnonzero(~inside)
    winner[place[inside]] = np.flatnonzero(inside)  # a triangle that covers the centre has the say
    chosen = winner[winner >= 0]
    kept = np.clip(weights[chosen], 0.0, 1.0)
    total = kept.sum(1, keepdims=True)
    kept = np.where(total > 1e-6, kept / np.maximum(total, 1e-6), 1.0 / 3.0)  # a triangle without area
    return Texels(
        place=place[chosen].astype(np.int32),
        face=face[chosen].astype(np.int32),
        weights=kept.astype(np.float32),
    )


def _edges(corners: _Doubles) -> tuple[_Doubles, _Doubles, _Doubles, _Doubles]:
    """Barycentric weights as planes: slopes in x and y and value at (0, 0), each (F, 3), and how far below 0
    a weight may be half a texel outside of its edge."""
    x, y = corners[:, :, 0], corners[:, :, 1]
    x1, y1, x2, y2 = (np.roll(part, -turn, 1) for turn in (1, 2) for part in (x, y))
    double_area = (x1 - x) * (y2 - y) - (x2 - x) * (y1 - y)
    double_area = np.where(np.abs(double_area) < 1e-9, 1e-9, double_area)
    slope_x, slope_y = (y1 - y2) / double_area, (x2 - x1) / double_area
    at_zero = (x1 * y2 - x2 * y1) / double_area
    return slope_x, slope_y, at_zero, np.minimum(0.5 * np.hypot(slope_x, slope_y), 1.0)


def _expand(
    first: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """For each i the whole numbers first[i], first[i] + 1, ...; and which i each belongs to."""
    owner = np.repeat(np.arange(len(counts)), counts)
    start = np.cumsum(counts) - counts
    return owner, np.arange(len(owner)) - start[owner] + first[owner]


def with_exact_normals(primitives: PrimitiveSet, mesh: Unwrapped) -> Unwrapped:
    """The mesh with the field's normals at its vertices, and tangents to match.

    With them the normal map of a smooth surface is nearly flat, and coarse triangles do not show through
    it. Each face asks a little inside of its corners, so that it gets its own side of a crease.
    """
    corners = mesh.vertices[mesh.faces]  # (F, 3, 3)
    inner = corners * 0.9 + corners.mean(1, keepdims=True) * 0.1
    points = torch.from_numpy(inner.reshape(-1, 3))
    owner = field.evaluate(primitives, points).owner
    exact = field.normals(primitives, points, owner).numpy().reshape(-1, 3, 3).astype(np.float64)
    normals = gather_normals(mesh.vertices, mesh.faces, exact)
    tangents = vertex_tangents(mesh.vertices, mesh.faces, mesh.uvs, normals)
    return replace(mesh, normals=normals, tangents=tangents)


def bake(primitives: PrimitiveSet, mesh: Unwrapped, size: int) -> Textures:
    """Bake the set's look onto the mesh at `size` x `size` texels."""
    texels = rasterise(mesh.uvs, mesh.faces, size)
    corners = mesh.faces[texels.face]  # (N, 3)
    points = torch.from_numpy(_blend(mesh.vertices, corners, texels.weights))
    hit = field.evaluate(primitives, points, _near_faces(primitives, mesh, texels.face))
    looks = field.materials(primitives, hit.owner)
    # A distance field's gradient is the same all along the way to the surface: no need to go there.
    normal = field.normals(primitives, points, hit.owner).numpy()
    orm = torch.stack((torch.ones_like(looks.roughness), looks.roughness, looks.metallic), -1)
    local = _to_tangent_space(mesh, corners, texels.weights, normal)
    nearest = _nearest_covered(texels.place, size)
    return Textures(
        base_colour=_image(looks.colour.numpy(), texels.place, nearest, size),
        occlusion_roughness_metallic=_image(orm.numpy(), texels.place, nearest, size),
        normal=_image(local * 0.5 + 0.5, texels.place, nearest, size),
    )


def _blend(values: Floats, corners: Ints, weights: Floats) -> Floats:
    blended = values[corners[:, 0]] * weights[:, :1]
    for corner in (1, 2):
        blended += values[corners[:, corner]] * weights[:, corner : corner + 1]
    return blended


def _near_faces(primitives: PrimitiveSet, mesh: Unwrapped, face: Ints) -> field.Near:
    corners = mesh.vertices[mesh.faces]  # (F, 3, 3)
    centres = corners.mean(1)
    radii = np.linalg.norm(corners - centres[:, None], axis=2).max(1) + 0.03  # and room for what simplification moved
    group = torch.from_numpy(face.astype(np.int64))
    return field.near(primitives, torch.from_numpy(centres), torch.from_numpy(radii), group)


def _to_tangent_space(mesh: Unwrapped, corners: Ints, weights: Floats, normal: Floats) -> Floats:
    """Object-space normals (N, 3) in the frame that a glTF renderer interpolates."""
    n = _unit(_blend(mesh.normals, corners, weights))
    t = _unit(_blend(np.ascontiguousarray(mesh.tangents[:, :3]), corners, weights))
    b = np.cross(n, t) * mesh.tangents[corners[:, 0], 3:]
    local = np.stack([np.einsum("nd,nd->n", normal, axis) for axis in (t, b, n)], 1)
    local[:, 2] = np.maximum(local[:, 2], 0.05)  # a map cannot turn a normal away from the viewer
    return _unit(local.astype(np.float32))


def _unit(vectors: Floats) -> Floats:
    unit: Floats = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return unit


def _nearest_covered(place: Ints, size: int) -> Ints:
    """For every texel the covered one nearest to it: bilinear filtering and mip maps see no background."""
    empty = np.ones(size * size, bool)
    empty[place] = False
    rows, columns = distance_transform_edt(empty.reshape(size, size), return_distances=False, return_indices=True)
    nearest: Ints = rows.astype(np.int32).reshape(-1) * size + columns.astype(np.int32).reshape(-1)
    return nearest


def _image(values: Floats, place: Ints, nearest: Ints, size: int) -> Bytes:
    image = np.zeros((size * size, 3), np.uint8)
    image[place] = np.clip(np.round(values * 255.0), 0, 255).astype(np.uint8)
    return image[nearest].reshape(size, size, 3)
