"""The signed distance field of a primitive set, in torch: distances, the nearest primitive, normals.

Closed forms after Inigo Quilez, "Distance functions" (iquilezles.org). An ellipsoid's values are first-order
exact at its surface and within a factor of two of the distance elsewhere; subtraction gives a bound. The
zero set is exact everywhere.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from inference.geometry.primitives import Primitive, PrimitiveSet

CHUNK_POINTS = 16_384  # a chunk of a dozen temporaries stays in a CPU core's cache
_FAR = 1e3
_NORMAL_STEP = 1e-3


@dataclass(frozen=True, kw_only=True)
class Near:
    """Which primitives matter to a point: points come in groups (a block of the grid, a face), and far
    primitives are left out for the whole group. Saves most of the work."""

    active: Tensor
    """(groups, primitives) bool."""
    group: Tensor
    """(N,): the group of each point."""


@dataclass(frozen=True, kw_only=True)
class Hit:
    """The field at points."""

    distance: Tensor
    """(N,), negative inside."""
    owner: Tensor
    """(N,): index of the primitive that decides the distance, whose look the surface has."""


@dataclass(frozen=True, kw_only=True)
class Materials:
    """What surface points look like."""

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
    local = local @ points.new_tensor(primitive.rotation)  # a row times R: the inverse rotation
    a, b, c, d = primitive.size
    match primitive.kind:
        case "box":
            return _box(local, (a - d, b - d, c - d)) - d
        case "cone":
            return _capped_cone(local, a - d, max(b - d, 0.0), max(c - d, 0.0)) - d
        case "ellipsoid":
            return _ellipsoid(local, (a, b, c))
        case "torus":
            lx, ly, lz = local.unbind(-1)
            return torch.hypot(torch.hypot(lx, lz) - a, ly) - b
        case "prism":
            return _prism(local, a - d, b - d, c - d) - d


def _length(vectors: Tensor) -> Tensor:
    lengths: Tensor = torch.linalg.vector_norm(vectors, dim=-1)
    return lengths


def _box(p: Tensor, half: tuple[float, float, float]) -> Tensor:
    q = p.abs() - p.new_tensor(half)
    return _length(q.clamp_min(0.0)) + q.amax(-1).clamp_max(0.0)


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
    r, least = p.new_tensor(radii), min(radii)
    k0, k1 = _length(p / r), _length(p / (r * r))
    first_order = k0 * (k0 - 1.0) / k1.clamp_min(1e-9)
    # Deep inside, the first-order value is far too large; this one never is.
    return torch.where(first_order > -0.5 * least, first_order, (k0 - 1.0) * least)


def _prism(p: Tensor, half_x: float, half_y: float, half_z: float) -> Tensor:
    """An isosceles triangle in xy (base 2 half_x at the bottom, height 2 half_y), extruded along z."""
    x, y = p[..., 0].abs(), p[..., 1] - half_y  # the tip is the origin
    h = 2.0 * half_y
    along = ((x * half_x - y * h) / (half_x * half_x + h * h)).clamp(0.0, 1.0)
    ax, ay = x - half_x * along, y + h * along
    bx, by = x - x.clamp(0.0, half_x), y + h
    inside = torch.minimum(-(x * h + y * half_x), y + h)  # both positive inside
    squared = torch.minimum(ax * ax + ay * ay, bx * bx + by * by)
    q = torch.stack((torch.where(inside > 0.0, -1.0, 1.0) * squared.sqrt(), p[..., 2].abs() - half_z), -1)
    return _length(q.clamp_min(0.0)) + q.amax(-1).clamp_max(0.0)


@torch.no_grad()
def near(primitives: PrimitiveSet, centres: Tensor, radii: Tensor, group: Tensor) -> Near:
    """Leave out primitives that lie outside of the ball (centres (G, 3), radii (G,)) of a group.

    Only primitives that the ball is wholly *outside* of may go: one that it lies deep inside of still
    decides what a later subtraction leaves. The factor covers what the ellipsoid's bound may be off.
    """
    columns = [distance_to(item, centres) < 2.0 * radii for item in primitives.primitives]
    return Near(active=torch.stack(columns, -1), group=group)


@torch.no_grad()
def evaluate(primitives: PrimitiveSet, points: Tensor, close: Near | None = None) -> Hit:
    """The field at points (N, 3), in chunks. With `close`, distances are right near the surface only."""
    distances, owners = [torch.empty(0)], [torch.empty(0, dtype=torch.long)]
    for start in range(0, len(points), CHUNK_POINTS):
        chunk = points[start : start + CHUNK_POINTS]
        active = None if close is None else close.active[close.group[start : start + CHUNK_POINTS]]
        total, owner = _fold(primitives, chunk, active)
        distances.append(total)
        owners.append(owner)
    return Hit(distance=torch.cat(distances), owner=torch.cat(owners))


def _fold(primitives: PrimitiveSet, points: Tensor, active: Tensor | None) -> tuple[Tensor, Tensor]:
    total = points.new_full((len(points),), _FAR)
    owner = torch.zeros(len(points), dtype=torch.long)
    for index, primitive in enumerate(primitives.primitives):
        if active is None:
            mine, before = None, total
            value = distance_to(primitive, points)
        else:
            mine = active[:, index].nonzero()[:, 0]
            if not len(mine):
                continue
            before = total[mine]
            value = distance_to(primitive, points[mine])
        if primitive.subtract:
            value = -value
            taken = value > before
        else:
            taken = value < before
        if mine is None:
            total = torch.where(taken, value, total)
            owner[taken] = index
        else:
            chosen = mine[taken]
            total[chosen] = value[taken]
            owner[chosen] = index
    return total, owner


def distance(primitives: PrimitiveSet, points: Tensor) -> Tensor:
    """Signed distance (N,) of points (N, 3)."""
    return evaluate(primitives, points).distance


@torch.no_grad()
def normals(primitives: PrimitiveSet, points: Tensor, owner: Tensor) -> Tensor:
    """Unit outward normals (N, 3) of the owning primitives at points near the surface.

    Four differences on a tetrahedron of the owner's distance alone, so creases between primitives stay
    sharp.
    """
    corners = points.new_tensor([[1.0, -1.0, -1.0], [-1.0, -1.0, 1.0], [-1.0, 1.0, -1.0], [1.0, 1.0, 1.0]])
    gradient = torch.zeros_like(points)
    for index, primitive in enumerate(primitives.primitives):
        for mine in torch.split((owner == index).nonzero()[:, 0], CHUNK_POINTS):
            at = points[mine]
            slope = torch.zeros_like(at)
            for corner in corners:
                slope += corner * distance_to(primitive, at + _NORMAL_STEP * corner)[:, None]
            gradient[mine] = -slope if primitive.subtract else slope
    return gradient / _length(gradient)[:, None].clamp_min(1e-12)


def materials(primitives: PrimitiveSet, owner: Tensor) -> Materials:
    """Look of surface points by their owners (N,)."""
    items = primitives.primitives
    return Materials(
        colour=torch.tensor([item.colour for item in items], dtype=torch.float32)[owner],
        roughness=torch.tensor([item.roughness for item in items], dtype=torch.float32)[owner],
        metallic=torch.tensor([item.metallic for item in items], dtype=torch.float32)[owner],
    )


def project(primitives: PrimitiveSet, points: Tensor, reach: float, close: Near | None = None) -> tuple[Tensor, Hit]:
    """Move points (N, 3) by one Newton step to the surface, by at most `reach`; with the field before it."""
    hit = evaluate(primitives, points, close)
    step = hit.distance.clamp(-reach, reach)[:, None] * normals(primitives, points, hit.owner)
    return points - step, hit
