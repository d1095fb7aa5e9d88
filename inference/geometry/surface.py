"""From the field to triangles: coarse to fine, then marching cubes, then one step to the exact surface."""

import numpy as np
import torch
from skimage.measure import marching_cubes
from torch import Tensor

from inference.geometry import field
from inference.geometry.cleaning import clean
from inference.geometry.mesh import Mesh, MeshInvalidError
from inference.geometry.primitives import PrimitiveSet

_BLOCK = 4  # grid points along a block's edge
_PAD = 2  # empty layers around the object: an open shape would be cut off


def extract(primitives: PrimitiveSet, resolution: int) -> Mesh:
    """The object's surface with `resolution` grid cells along its longest side, with looks per vertex.

    Raises `MeshInvalidError` when there is no surface.
    """
    volume, origin, step = sample_volume(primitives, resolution)
    if not (volume.min() < 0.0 < volume.max()):
        raise MeshInvalidError("the field has no surface")
    vertices, faces, _, _ = marching_cubes(volume, 0.0, gradient_direction="descent")  # type: ignore[no-untyped-call]
    points = torch.from_numpy((vertices * step + origin).astype(np.float32))
    for _ in range(2):
        points, _ = field.project(primitives, points, reach=0.5 * step)
    shape = clean(Mesh(vertices=points.numpy(), faces=faces.astype(np.int32)))
    owner = field.evaluate(primitives, torch.from_numpy(shape.vertices)).owner
    looks = field.materials(primitives, owner)
    surface = torch.stack((looks.roughness, looks.metallic), -1)
    return Mesh(
        vertices=shape.vertices,
        faces=shape.faces,
        colours=(looks.colour * 255.0).round().byte().numpy(),
        surface=(surface * 255.0).round().byte().numpy(),
    )


def sample_volume(
    primitives: PrimitiveSet, resolution: int
) -> tuple[np.ndarray[tuple[int, int, int], np.dtype[np.float32]], np.ndarray[tuple[int], np.dtype[np.float64]], float]:
    """The field on a grid: values (X, Y, Z), the first point, the distance of neighbours.

    Only blocks of 4 x 4 x 4 points that the surface may cross are evaluated; the others get their
    centre's value, which has the right sign.
    """
    low, high = primitives.bounds()
    step = float((high - low).max()) / resolution
    blocks = np.ceil(((high - low) / step + 1 + 2 * _PAD) / _BLOCK).astype(int)
    origin = (low + high) / 2 - (blocks * _BLOCK - 1) * step / 2
    centres = _grid(blocks, origin + (_BLOCK - 1) / 2 * step, _BLOCK * step)  # (B, 3)
    radius = (_BLOCK + 1) / 2 * step * 3**0.5  # one point more: neighbours across blocks are compared
    values = field.distance(primitives, centres)
    crossed = (values.abs() < 2.0 * radius).nonzero()[:, 0]
    filled = values[:, None].repeat(1, _BLOCK**3)  # (B, 64)
    inner = _grid(np.full(3, _BLOCK), np.full(3, -(_BLOCK - 1) / 2 * step), step)  # (64, 3)
    points = (centres[crossed][:, None] + inner).reshape(-1, 3)
    group = torch.arange(len(crossed)).repeat_interleave(_BLOCK**3)
    close = field.near(primitives, centres[crossed], torch.full((len(crossed),), radius), group)
    filled[crossed] = field.evaluate(primitives, points, close).distance.reshape(-1, _BLOCK**3)
    nx, ny, nz = (int(count) for count in blocks)
    volume = filled.reshape(nx, ny, nz, _BLOCK, _BLOCK, _BLOCK).permute(0, 3, 1, 4, 2, 5)
    return volume.reshape(nx * _BLOCK, ny * _BLOCK, nz * _BLOCK).numpy(), origin, step


def _grid(counts: np.ndarray[tuple[int], np.dtype[np.int64]], first: object, step: float) -> Tensor:
    axes = [
        torch.arange(int(count)) * step + float(start) for count, start in zip(counts, np.asarray(first), strict=True)
    ]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3).float()
