"""Small corrections of a sampled primitive set: what the flow's noise leaves a few hundredths off."""

from dataclasses import replace

import numpy as np
import torch

from inference.geometry import field
from inference.geometry.primitives import Primitive, PrimitiveSet

_NEARLY_CENTRED = 0.03
_GREATEST_MOVE = 0.12
_LEAST_GAP, _GREATEST_GAP = 0.003, 0.08


def repaired(primitives: PrimitiveSet) -> PrimitiveSet:
    """The set with parts that are almost in the middle put there, hidden parts brought to the surface and
    loose parts joined.

    A door that lies wholly inside of its wall was meant to be on it: a part whose six outermost points are
    all inside of the others moves the shortest way out, by at most 0.12. A part that hangs in the air less
    than 0.08 from the others moves to touch them.
    """
    items = [_centred(item) for item in primitives.primitives]
    if any(item.subtract for item in items):  # what is hidden is then not for the unions alone to say
        return PrimitiveSet(primitives=tuple(items))
    for index in range(1, len(items)):
        others = PrimitiveSet(primitives=tuple(items[:index] + items[index + 1 :]))
        if items[index].kind != "torus":  # a ring may touch or show anywhere: a few points do not tell
            items[index] = _joined(_brought_out(items[index], others), others)
    return PrimitiveSet(primitives=tuple(items))


def _centred(item: Primitive) -> Primitive:
    x, y, z = item.centre
    if abs(x) < _NEARLY_CENTRED:
        x = 0.0
    if abs(z) < _NEARLY_CENTRED:
        z = 0.0
    return replace(item, centre=(x, y, z))


def _brought_out(item: Primitive, others: PrimitiveSet) -> Primitive:
    outwards = np.concatenate((np.eye(3), -np.eye(3))) @ np.array(item.rotation).T  # (6, 3): the local axes
    reach = np.tile(item.local_half_extents(), 2)[:, None]
    ends = np.array(item.centre) + outwards * reach
    depth = -field.distance(others, torch.from_numpy(ends.astype(np.float32))).numpy()
    best = int(np.argmin(depth))
    move = float(depth[best]) + max(0.3 * float(reach[best, 0]), 0.012)
    if depth.min() <= 0.0 or move > _GREATEST_MOVE:
        return item
    x, y, z = np.array(item.centre) + outwards[best] * move
    return replace(item, centre=(float(x), float(y), float(z)))


def _joined(item: Primitive, others: PrimitiveSet) -> Primitive:
    steps = np.stack(np.meshgrid(*[[-1.0, 0.0, 1.0]] * 3, indexing="ij"), -1).reshape(-1, 3)
    if item.kind != "box":
        steps = steps[np.abs(steps).sum(1) <= 1]  # the others have no corners there
    local = steps * item.local_half_extents()
    points = torch.from_numpy((local @ np.array(item.rotation).T + item.centre).astype(np.float32))
    hit = field.evaluate(others, points)
    nearest = int(hit.distance.argmin())
    gap = float(hit.distance[nearest])
    if not _LEAST_GAP < gap < _GREATEST_GAP:
        return item
    towards = -field.normals(others, points[nearest : nearest + 1], hit.owner[nearest : nearest + 1])[0].numpy()
    x, y, z = np.array(item.centre) + towards * (gap + 0.01)
    return replace(item, centre=(float(x), float(y), float(z)))
