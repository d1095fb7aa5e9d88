"""Retopology by quadric simplification, in a limited child process, with a checked result.

Simplifiers are C++ that bad meshes crash, hang or lead to garbage; so the mesh is cleaned first, the child
has limits on time and memory, and its result is believed only if it holds up. If it does not, the cleaned
input goes on, and the result says so. Needs no torch.

Algorithm: Garland & Heckbert 1997, "Surface Simplification Using Quadric Error Metrics", as implemented by
fast-simplification.
"""

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import structlog
from scipy.spatial import cKDTree

from inference.geometry import mesh as meshes
from inference.geometry.cleaning import clean
from inference.geometry.mesh import Floats, Mesh, MeshInvalidError

log = structlog.get_logger()

Method = Literal["quadric", "unchanged"]
_SECOND_TRY = 3  # what breaks at the target often holds at three times as many faces


@dataclass(frozen=True, kw_only=True)
class SimplifyLimits:
    """What the child may use, and what is demanded of its result."""

    timeout_seconds: float = 60.0
    memory_bytes: int = 3 << 30
    """Address space, libraries included."""
    distance_share: float = 0.02
    """Greatest Hausdorff distance (99.9 % of the points) as a share of the diagonal."""


@dataclass(frozen=True, kw_only=True)
class Simplified:
    """A mesh fit for unwrapping."""

    mesh: Mesh
    method: Method
    reason: str
    """Why the first try was refused or the input went on unchanged; empty when all went well."""
    hausdorff: float
    """Distance to the input as a share of the diagonal, 99.9 % of the points; 0 when unchanged."""


def simplify(mesh: Mesh, target_faces: int, limits: SimplifyLimits | None = None) -> Simplified:
    """About `target_faces` faces in the place of the mesh's. Raises `MeshInvalidError` when the mesh is
    broken beyond cleaning; never fails because of the simplifier."""
    limits = limits or SimplifyLimits()
    cleaned = clean(mesh)
    if len(cleaned.faces) <= target_faces:
        return Simplified(mesh=cleaned, method="unchanged", reason="small enough", hausdorff=0.0)
    reason = ""
    for target in (target_faces, _SECOND_TRY * target_faces):
        if target >= len(cleaned.faces):
            break
        try:
            result = _in_child(cleaned, target, limits)
            distance = _accept(cleaned, result, limits)
        except MeshInvalidError as error:
            reason = error.reason
            log.warning("simplification_refused", reason=reason, faces=len(cleaned.faces), target=target)
            continue
        return Simplified(mesh=result, method="quadric", reason=reason, hausdorff=distance)
    return Simplified(mesh=cleaned, method="unchanged", reason=reason, hausdorff=0.0)


def _in_child(mesh: Mesh, target_faces: int, limits: SimplifyLimits) -> Mesh:
    """Run the child. Everything that goes wrong with it is a `MeshInvalidError`."""
    with tempfile.TemporaryDirectory(prefix="meshyard-simplify-") as folder:
        source, result = Path(folder) / "in.npz", Path(folder) / "out.npz"
        meshes.save(Mesh(vertices=mesh.vertices, faces=mesh.faces), source)
        figures = [str(target_faces), str(limits.memory_bytes), str(int(limits.timeout_seconds) + 1)]
        command = [sys.executable, "-m", "inference.geometry.simplify_child", str(source), str(result), *figures]
        try:
            done = subprocess.run(  # noqa: S603 - our own module, arguments are ours
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # simplifiers print what they like
                stderr=subprocess.PIPE,
                timeout=limits.timeout_seconds,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise MeshInvalidError(f"no result within {limits.timeout_seconds} s") from error
        if done.returncode != 0:
            last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
            raise MeshInvalidError(f"the child ended with {done.returncode}: {' '.join(last)[:200]}")
        return meshes.load(result)


def _accept(before: Mesh, after: Mesh, limits: SimplifyLimits) -> float:
    """The distance between the two. Raises `MeshInvalidError` when the result is not to be believed."""
    after.check()
    if before.is_watertight() and not after.is_watertight():
        raise MeshInvalidError("the result is not watertight, the input was")
    distance = hausdorff(before, after) / before.diagonal()
    if distance > limits.distance_share:
        raise MeshInvalidError(f"the result is off by {distance:.4f} of the diagonal")
    return distance


def hausdorff(one: Mesh, other: Mesh, samples: int = 20_000) -> float:
    """Symmetric Hausdorff distance over random surface points, 99.9 % quantile, in mesh units.

    Point to nearest sampled tangent plane, so that the density of the samples does not show.
    """
    first, second = sample_points(one, samples), sample_points(other, samples)
    return max(_one_sided(*first, *second), _one_sided(*second, *first))


def sample_points(mesh: Mesh, count: int) -> tuple[Floats, Floats]:
    """Points (count, 3) spread evenly over the surface, and unit normals; always the same ones."""
    rng = np.random.default_rng(0)
    scaled = mesh.face_normals()
    areas = np.linalg.norm(scaled, axis=1)
    chosen = np.searchsorted(np.cumsum(areas) / areas.sum(), (np.arange(count) + 0.5) / count)
    chosen = np.minimum(chosen, len(areas) - 1)
    u, v = np.sqrt(rng.random(count)), rng.random(count)
    weights = np.stack((1 - u, u * (1 - v), u * v), 1)
    points = np.einsum("nc,ncd->nd", weights, mesh.vertices[mesh.faces[chosen]])
    normals = scaled[chosen] / np.maximum(areas[chosen, None], 1e-30)
    return points.astype(np.float32), normals.astype(np.float32)


def _one_sided(points: Floats, normals: Floats, others: Floats, other_normals: Floats) -> float:
    distances, nearest = cKDTree(others).query(points)
    del normals
    plane = np.abs(np.einsum("nd,nd->n", points - others[nearest], other_normals[nearest]))
    spacing = _spacing(others)
    # Far from every sample the plane says nothing; near one, the distance is mostly the samples' spacing.
    return float(np.quantile(np.where(distances > 3 * spacing, distances, plane), 0.999))


def _spacing(points: Floats) -> float:
    probe = points[:: max(1, len(points) // 500)]
    distances: npt.NDArray[np.float64] = cKDTree(points).query(probe, k=2)[0]
    return float(distances[:, 1].mean())
