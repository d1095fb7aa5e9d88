"""Triangle meshes as they travel between stages, and their file form (`.npz`, no pickles)."""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]
Bytes = npt.NDArray[np.uint8]

MAX_FACES = 4_000_000


class MeshInvalidError(ValueError):
    """A mesh that cannot be worked on; `reason` says what is wrong with it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class Mesh:
    """Triangles, counter-clockwise seen from outside."""

    vertices: Floats
    """(V, 3)."""
    faces: Ints
    """(F, 3)."""
    colours: Bytes | None = None
    """(V, 3) sRGB, where the mesh carries its look."""
    surface: Bytes | None = None
    """(V, 2): roughness, metallic in 0..255."""

    def check(self) -> "Mesh":
        """The mesh itself. Raises `MeshInvalidError` when shapes, indices or numbers are wrong."""
        if self.vertices.ndim != 2 or self.vertices.shape[1] != 3:
            raise MeshInvalidError(f"vertices have the shape {self.vertices.shape}")
        if self.faces.ndim != 2 or self.faces.shape[1] != 3:
            raise MeshInvalidError(f"faces have the shape {self.faces.shape}")
        if not len(self.faces) or len(self.faces) > MAX_FACES:
            raise MeshInvalidError(f"{len(self.faces)} faces; 1 to {MAX_FACES} are possible")
        if self.faces.min() < 0 or self.faces.max() >= len(self.vertices):
            raise MeshInvalidError("a face names a vertex that does not exist")
        if not np.isfinite(self.vertices).all():
            raise MeshInvalidError("a vertex is not finite")
        for name, values in (("colours", self.colours), ("surface", self.surface)):
            if values is not None and len(values) != len(self.vertices):
                raise MeshInvalidError(f"{len(values)} {name} for {len(self.vertices)} vertices")
        return self

    def diagonal(self) -> float:
        """Length of the bounding box's diagonal."""
        return float(np.linalg.norm(self.vertices.max(0) - self.vertices.min(0)))

    def face_normals(self) -> npt.NDArray[np.float64]:
        """(F, 3): direction by the winding, length twice the area."""
        a, b, c = (self.vertices[self.faces[:, corner]].astype(np.float64) for corner in range(3))
        normals: npt.NDArray[np.float64] = np.cross(b - a, c - a)
        return normals

    def is_watertight(self) -> bool:
        """True when every edge has as many faces on one side as on the other: there is no border."""
        forward, backward = self._half_edges()
        return bool(np.array_equal(forward, backward))

    def is_manifold(self) -> bool:
        """True when every edge has exactly one face on each side."""
        forward, backward = self._half_edges()
        return bool(np.array_equal(forward, backward)) and bool((np.diff(forward) > 0).all())

    def _half_edges(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Every face's edges as one sorted number each, in the faces' direction and against it."""
        edges = self.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2).astype(np.int64)
        forward = edges[:, 0] * len(self.vertices) + edges[:, 1]
        backward = edges[:, 1] * len(self.vertices) + edges[:, 0]
        return np.sort(forward), np.sort(backward)


def without_folds(faces: Ints) -> Ints:
    """The faces without pairs that have the same corners and look in opposite directions: together they
    enclose nothing."""
    if not len(faces):
        return faces
    least = faces.argmin(1)
    rows = np.arange(len(faces))
    turned = np.stack([faces[rows, (least + step) % 3] for step in range(3)], 1)  # starts at its least vertex
    forward = turned[:, 1] < turned[:, 2]
    _, group = np.unique(np.sort(faces, axis=1), axis=0, return_inverse=True)
    group = group.reshape(-1)
    ahead, back = np.bincount(group, forward), np.bincount(group, ~forward)
    kept: Ints = faces[(ahead[group] == 0) | (back[group] == 0)]
    return kept


def save(mesh: Mesh, path: Path) -> None:
    """Write the mesh as `.npz`."""
    arrays: dict[str, Any] = {"vertices": mesh.vertices, "faces": mesh.faces}
    if mesh.colours is not None:
        arrays["colours"] = mesh.colours
    if mesh.surface is not None:
        arrays["surface"] = mesh.surface
    np.savez(path, **arrays)


def load(path: Path) -> Mesh:
    """Read a mesh. Raises `MeshInvalidError`; nothing in the file is executed."""
    try:
        # Opened here: numpy leaves a file open that turns out to be no archive.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            held = {name: file[name] for name in file.files}
        vertices, faces = held["vertices"], held["faces"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise MeshInvalidError(f"{path.name} is no mesh file: {error}") from error
    if vertices.dtype.kind not in "fiu" or faces.dtype.kind not in "iu":
        raise MeshInvalidError(f"vertices are {vertices.dtype}, faces {faces.dtype}")
    if faces.size and (faces.min() < 0 or faces.max() >= len(vertices)):  # before the cast can wrap
        raise MeshInvalidError("a face names a vertex that does not exist")
    colours, surface = held.get("colours"), held.get("surface")
    return Mesh(
        vertices=vertices.astype(np.float32),
        faces=faces.astype(np.int32),
        colours=None if colours is None else colours.astype(np.uint8),
        surface=None if surface is None else surface.astype(np.uint8),
    ).check()
