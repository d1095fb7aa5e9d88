"""The signed distance field of a primitive set, in torch: distances, the nearest primitive, normals.

Closed forms after Inigo Quilez, "Distance functions" (iquilezles.org). The ellipsoid's and the mirrored
and subtracted parts' values are bounds and not exact distances; their zero set is exact.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from inference.geometry.primitives import Primitive, PrimitiveSet

CHUNK_POINTS = 16_384  # a chunk of a dozen temporaries stays in a CPU core's cache


@dataclass(frozen=True, kw_only=True)
class Materials:
    """What a surface point looks like."""

    colour: Tensor
    """(N, 3), sRGB 0..1."""
    roughness: Tensor
    """(N,)"""
    metallic: Tensor
    """(N,)"""


def distance_to(primitive: Primitive, points: Tensor) -> Tensor:
    """Signed distance (N,) of points (N, 3) to one primitive, mirrors included; negative inside."""
    x, y, z = points.unbind(-1)
    if primitive.mirror_x:
        x = x.abs()
    if primitive.mirror_z:
        z = z.abs()
    local = torch.stack((x, y, z), -1) - points.new_tensor(primitive.centre)
    local = local @ points.new_tensor(primitive.rotation)  # rows times R = R^T applied to columns
    a, b, c, d = primitive.size
    match primitive.kind:
        case "box":
            return _box(local, (a - d, b - d, c - d)) - d
        case "cone":
            return _capped_cone(local, a - d, max(b - d, 0.0), max(c - d, 0.0)) - d
        case "ellipsoid":
            return _ellipsoid(local, (a, b, c))
        case "torus":
            x, y, z = local.unbind(-1)
            return torch.hypot(torch.hypot(x, z) - a, y) - b
        case "prism":
            return _prism(local, a - d, b - d, c - d) - d


def _box(p: Tensor, half: tuple[float, float, float]) -> Tensor:
    q = p.abs() - p.new_tensor(half)
    return q.clamp_min(0.0).norm(dim=-1) + q.amax(-1).clamp_max(0.0)


def _capped_cone(p: Tensor, half_height: float, bottom: float, top: float) -> Tensor:
    x, y = torch.hypot(p[..., 0], p[..., 2]), p[..., 1]
    cap = torch.where(y < 0.0, bottom, top)
    ax, ay = x - torch.minimum(x, cap), y.abs() - half_height
    k2x, k2y = top - bottom, 2.0 * half_height
    along = (((top - x) * k2x + (half_height - y) * k2y) / (k2x * k2x + k2y * k2y)).clamp(0.0, 1.0)
    bx, by = x - top + k2x * along, y - half_height + k2y * along
    sign = torch.where((bx < 0.0) & (ay < 0.0), -1.0, 1.0)
    return sign * torch.minimum(ax * ax + ay * ay, bx * bx + by * by).sqrt()


def _ellipsoid(p: Tensor, radii: tuple[float, float, float]) -> Tensor:
    r = p.new_tensor(radii)
    k0, k1 = (p / r).norm(dim=-1), (p / (r * r)).norm(dim=-1)
    return torch.where(k1 > 1e-6, k0 * (k0 - 1.0) / k1.clamp_min(1e-6), -min(radii))


def _prism(p: Tensor, half_x: float, half_y: float, half_z: float) -> Tensor:
    """An isosceles triangle in xy (base 2 half_x at the bottom, height 2 half_y), extruded along z."""
    x, y = p[..., 0].abs(), p[..., 1] - half_y  # the tip is the origin
    h = 2.0 * half_y
    along = ((x * half_x - y * h) / (half_x * half_x + h * h)).clamp(0.0, 1.0)
    ax, ay = x - half_x * along, y + h * along
    bx, by = x - x.clamp(0.0, half_x), y + h
    inside = torch.minimum(-(x * h + y * half_x), y + h)  # both positive inside
    flat = torch.where(inside > 0.0, -1.0, 1.0) * torch.minimum(ax * ax + ay * ay, bx * bx + by * by).sqrt()
    q = torch.stack((flat, p[..., 2].abs() - half_z), -1)
    return q.clamp_min(0.0).norm(dim=-1) + q.amax(-1).clamp_max(0.0)


def _fold(primitives: PrimitiveSet, points: Tensor) -> tuple[Tensor, Tensor]:
    total = points.new_full(points.shape[:-1], 1e3)
    owner = torch.zeros(points.shape[:-1], dtype=torch.long)
    for index, primitive in enumerate(primitives.primitives):
        distance = distance_to(primitive, points)
        if primitive.subtract:
            taken = -distance > total
            total = torch.maximum(total, -distance)
        else:
            taken = distance < total
            total = torch.minimum(total, distance)
        owner = torch.where(taken, index, owner)
    return total, owner


@torch.no_grad()
def distance(primitives: PrimitiveSet, points: Tensor) -> Tensor:
    """Signed distance (N,) of points (N, 3), in chunks."""
    if not len(points):
        return points.new_empty(0)
    return torch.cat([_fold(primitives, chunk)[0] for chunk in points.split(CHUNK_POINTS)])


@torch.no_grad()
def owners(primitives: PrimitiveSet, points: Tensor) -> Tensor:
    """The primitive (N,) whose surface each point is nearest to: the one that decides the distance there."""
    return torch.cat([_fold(primitives, chunk)[1] for chunk in points.split(CHUNK_POINTS)])


def materials(primitives: PrimitiveSet, points: Tensor) -> Materials:
    """Look of points (N, 3) on the surface, by the nearest primitive."""
    owner = owners(primitives, points)
    items = primitives.primitives
    return Materials(
        colour=torch.tensor([item.colour for item in items], dtype=torch.float32)[owner],
        roughness=torch.tensor([item.roughness for item in items], dtype=torch.float32)[owner],
        metallic=torch.tensor([item.metallic for item in items], dtype=torch.float32)[owner],
    )


def normals(primitives: PrimitiveSet, points: Tensor, step: float = 2e-3) -> Tensor:
    """Unit outward normals (N, 3): four differences on a tetrahedron (Quilez), which also round hard edges
    over `step`."""
    corners = points.new_tensor(np.array([[1, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, 1, 1]]))
    gradient = torch.zeros_like(points)
    for corner in corners:
        gradient += corner * distance(primitives, points + step * corner)[:, None]
    return gradient / gradient.norm(dim=-1, keepdim=True).clamp_min(1e-9)
