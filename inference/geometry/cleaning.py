"""Cleaning before anything else touches a mesh: what remeshers crash on is taken out here."""

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from inference.geometry.mesh import Ints, Mesh, MeshInvalidError, without_folds


def clean(mesh: Mesh, least_component: float = 0.01) -> Mesh:
    """Merge equal vertices, drop degenerate and repeated faces, components with a smaller share of the
    faces than `least_component`, and vertices that nothing uses. A manifold mesh stays as it is, but
    for small components.

    Raises `MeshInvalidError` when the mesh is broken or nothing is left.
    """
    mesh.check()
    first, faces = np.arange(len(mesh.vertices)), mesh.faces
    if not mesh.is_manifold():  # else merging could only tear it: sheets that touch are no fault
        first, faces = _merged(mesh)
    if len(faces):
        faces = faces[_large_components(faces, len(first), least_component)]
    if not len(faces):
        raise MeshInvalidError("nothing is left after cleaning")
    used, renumbered = np.unique(faces, return_inverse=True)
    chosen = first[used]
    return Mesh(
        vertices=mesh.vertices[chosen],
        faces=renumbered.reshape(-1, 3).astype(np.int32),
        colours=None if mesh.colours is None else mesh.colours[chosen],
        surface=None if mesh.surface is None else mesh.surface[chosen],
    )


def _merged(mesh: Mesh) -> tuple[npt.NDArray[np.int64], Ints]:
    """A vertex of the mesh for each merged one, and the faces that are left, in merged vertices."""
    rounded = np.round(mesh.vertices / max(mesh.diagonal(), 1e-12) * 1e7).astype(np.int64)
    _, first, merged = np.unique(rounded, axis=0, return_index=True, return_inverse=True)
    faces = merged.reshape(-1)[mesh.faces].astype(np.int32)
    kept = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    kept &= np.linalg.norm(mesh.face_normals(), axis=1) > 1e-14 * mesh.diagonal() ** 2
    faces = without_folds(faces[kept])
    _, single = np.unique(np.sort(faces, axis=1), axis=0, return_index=True)
    return first, faces[np.sort(single)]


def components(faces: Ints, vertices: int) -> Ints:
    """(F,): the component of each face, by shared vertices."""
    start, end = faces[:, :2].reshape(-1), faces[:, 1:].reshape(-1)
    graph = coo_matrix((np.ones(len(start), np.int8), (start, end)), shape=(vertices, vertices))
    labels: Ints = connected_components(graph, directed=False)[1]
    of_face: Ints = labels[faces[:, 0]]
    return of_face


def _large_components(faces: Ints, vertices: int, share: float) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    labels = components(faces, vertices)
    counts = np.bincount(labels)
    large: np.ndarray[tuple[int], np.dtype[np.bool_]] = counts[labels] >= share * len(faces)
    return large
