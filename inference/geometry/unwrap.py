"""UV unwrapping with xatlas, and the tangent frame that the baker and every renderer share."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xatlas

from inference.geometry.mesh import Floats, Ints, Mesh, MeshInvalidError

_Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Unwrapped:
    """A mesh cut open along chart borders. UVs are glTF's: (0, 0) is the upper left corner of the image."""

    vertices: Floats
    """(V, 3)."""
    faces: Ints
    """(F, 3)."""
    uvs: Floats
    """(V, 2), 0..1."""
    normals: Floats
    """(V, 3), unit; smooth within a chart, sharp across its border."""
    tangents: Floats
    """(V, 4): unit direction of growing u, and the sign of the bitangent (glTF's TANGENT)."""
    charts: int
    """Number of charts."""


def unwrap(mesh: Mesh, texture_size: int) -> Unwrapped:
    """Cut and pack the mesh for square textures of `texture_size` pixels. Raises `MeshInvalidError`."""
    mesh.check()
    atlas = xatlas.Atlas()
    atlas.add_mesh(mesh.vertices, mesh.faces.astype(np.uint32))
    charts, pack = xatlas.ChartOptions(), xatlas.PackOptions()
    pack.resolution = texture_size
    pack.padding = max(2, texture_size // 256)
    pack.bilinear = True
    atlas.generate(chart_options=charts, pack_options=pack)
    origin, faces, uvs = atlas[0]
    if not len(faces) or not np.isfinite(uvs).all():
        raise MeshInvalidError("unwrapping gave no usable atlas")
    vertices, corners = mesh.vertices[origin], faces.astype(np.int32)
    uvs = np.clip(uvs, 0.0, 1.0).astype(np.float32)
    normals = vertex_normals(vertices, corners)
    return Unwrapped(
        vertices=vertices,
        faces=corners,
        uvs=uvs,
        normals=normals,
        tangents=vertex_tangents(vertices, corners, uvs, normals),
        charts=int(atlas.chart_count),
    )


def vertex_normals(vertices: Floats, faces: Ints) -> Floats:
    """Unit normals (V, 3): the faces' own, each weighted by its angle at the vertex."""
    corners = vertices[faces].astype(np.float64)  # (F, 3, 3)
    face = _unit(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]))
    return gather_normals(vertices, faces, np.repeat(face[:, None], 3, 1))


def gather_normals(vertices: Floats, faces: Ints, at_corners: _Doubles) -> Floats:
    """Unit normals (V, 3) from normals at the faces' corners (F, 3, 3), each weighted by the face's angle
    there (Thürmer & Wüthrich 1998)."""
    corners = vertices[faces].astype(np.float64)  # (F, 3, 3)
    total = np.zeros((len(vertices), 3))
    for corner in range(3):
        left = _unit(corners[:, (corner + 1) % 3] - corners[:, corner])
        right = _unit(corners[:, (corner + 2) % 3] - corners[:, corner])
        angle = np.arccos(np.clip(np.einsum("nd,nd->n", left, right), -1.0, 1.0))
        np.add.at(total, faces[:, corner], at_corners[:, corner] * angle[:, None])
    bare = np.linalg.norm(total, axis=1) < 1e-12
    total[bare] = (0.0, 1.0, 0.0)
    return _unit(total).astype(np.float32)


def _unit(vectors: _Doubles) -> _Doubles:
    lengths: _Doubles = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.maximum(lengths, 1e-30)


def vertex_tangents(vertices: Floats, faces: Ints, uvs: Floats, normals: Floats) -> Floats:
    """Per vertex: the direction of growing u, at right angles to the normal. w makes `cross(N, T) * w` point
    to the upper edge of the image (shrinking v), which is where a glTF normal map has its +Y."""
    p, q = vertices[faces].astype(np.float64), uvs[faces].astype(np.float64)
    edge1, edge2 = p[:, 1] - p[:, 0], p[:, 2] - p[:, 0]
    d1, d2 = q[:, 1] - q[:, 0], q[:, 2] - q[:, 0]
    area = d1[:, 0] * d2[:, 1] - d2[:, 0] * d1[:, 1]
    sign = np.where(area < 0.0, -1.0, 1.0)[:, None]  # dividing by the area itself would weigh slivers most
    along_u = (edge1 * d2[:, 1:] - edge2 * d1[:, 1:]) * sign
    along_v = (edge2 * d1[:, :1] - edge1 * d2[:, :1]) * sign
    u_sum, v_sum = np.zeros((len(vertices), 3)), np.zeros((len(vertices), 3))
    for corner in range(3):
        np.add.at(u_sum, faces[:, corner], along_u)
        np.add.at(v_sum, faces[:, corner], along_v)
    n = normals.astype(np.float64)
    tangent = u_sum - n * np.einsum("nd,nd->n", n, u_sum)[:, None]
    weak = np.linalg.norm(tangent, axis=1) < 1e-12 + 1e-4 * np.linalg.norm(u_sum, axis=1)
    helper = np.where(np.abs(n[:, :1]) < 0.9, [[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]])
    tangent = _unit(np.where(weak[:, None], np.cross(n, helper), tangent))
    upwards = np.einsum("nd,nd->n", np.cross(n, tangent), -v_sum)
    w = np.where(upwards < 0.0, -1.0, 1.0)
    return np.concatenate((tangent, w[:, None]), 1).astype(np.float32)
