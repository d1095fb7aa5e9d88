"""The object as data: an ordered set of signed-distance primitives, and its JSON form (role `field`).

Axes are glTF's: y up, the front looks along +z, right-handed. An object fills about the box [-1, 1].
The set is folded in order: a primitive is united with what came before it, or subtracted from it.
A mirrored primitive stands on the positive side of the plane and appears on both.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

import msgspec
import numpy as np
import numpy.typing as npt

Kind = Literal["box", "cone", "ellipsoid", "torus", "prism"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
MAX_PRIMITIVES: Final = 16
FORMAT: Final = "primitive-set/1"

# The names of the four size parameters of a kind, in the order of `Primitive.size`. Units: object units.
SIZE_NAMES: Final[dict[Kind, tuple[str, ...]]] = {
    "box": ("half_x", "half_y", "half_z", "rounding"),
    "cone": ("half_height", "radius_bottom", "radius_top", "rounding"),  # along y
    "ellipsoid": ("radius_x", "radius_y", "radius_z"),
    "torus": ("radius_ring", "radius_tube"),  # around y
    "prism": ("half_x", "half_y", "half_z", "rounding"),  # a triangle with its edge up, extruded along z
}

Matrix = tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]
IDENTITY: Final[Matrix] = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


class InvalidPrimitives(ValueError):
    """A primitive set that cannot be used; the message names the entry."""


@dataclass(frozen=True, kw_only=True)
class Primitive:
    """One primitive."""

    kind: Kind
    centre: tuple[float, float, float]
    size: tuple[float, float, float, float]
    """See `SIZE_NAMES`; what a kind does not use is 0."""
    rotation: Matrix = IDENTITY
    """Rows of the matrix that takes local to object coordinates."""
    subtract: bool = False
    mirror_x: bool = False
    mirror_z: bool = False
    colour: tuple[float, float, float] = (0.8, 0.8, 0.8)
    """sRGB, 0..1."""
    roughness: float = 0.6
    metallic: float = 0.0

    def local_half_extents(self) -> npt.NDArray[np.float64]:
        """Half extents of the local bounding box (3,)."""
        a, b, c, _ = self.size
        match self.kind:
            case "cone":
                return np.array([max(b, c), a, max(b, c)])
            case "torus":
                return np.array([a + b, b, a + b])
            case _:
                return np.array([a, b, c])


@dataclass(frozen=True, kw_only=True)
class PrimitiveSet:
    """An object: 1 to `MAX_PRIMITIVES` primitives in the order in which they are folded."""

    primitives: tuple[Primitive, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.primitives) <= MAX_PRIMITIVES:
            raise InvalidPrimitives(f"{len(self.primitives)} primitives; 1 to {MAX_PRIMITIVES} are possible")
        for index, primitive in enumerate(self.primitives):
            numbers = [*primitive.centre, *primitive.size, *primitive.colour]
            numbers += [value for row in primitive.rotation for value in row]
            if not all(math.isfinite(value) for value in (*numbers, primitive.roughness, primitive.metallic)):
                raise InvalidPrimitives(f"primitive {index}: a number is not finite")
            if min(primitive.size) < 0.0 or max(primitive.size) > 4.0:
                raise InvalidPrimitives(f"primitive {index}: size {primitive.size} out of range")
            if max(abs(value) for value in primitive.centre) > 4.0:
                raise InvalidPrimitives(f"primitive {index}: centre {primitive.centre} out of range")

    def bounds(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Lower and upper corner (3,) of a box that holds every united primitive (not the least one)."""
        low, high = np.full(3, np.inf), np.full(3, -np.inf)
        for primitive in self.primitives:
            if primitive.subtract:
                continue
            extent = np.abs(np.array(primitive.rotation)) @ primitive.local_half_extents()
            bottom, top = np.array(primitive.centre) - extent, np.array(primitive.centre) + extent
            for axis, mirrored in ((0, primitive.mirror_x), (2, primitive.mirror_z)):
                if mirrored:
                    top[axis] = max(top[axis], 0.0)
                    bottom[axis] = -top[axis]
            low, high = np.minimum(low, bottom), np.maximum(high, top)
        if not np.isfinite(low).all():
            raise InvalidPrimitives("nothing is united: the object is empty")
        return low, high


class _Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    kind: Kind
    operation: Literal["union", "subtract"]
    centre: tuple[float, float, float]
    size: dict[str, float]
    rotation: Matrix
    mirror: tuple[Literal["x", "z"], ...]
    colour_srgb: tuple[float, float, float]
    roughness: float
    metallic: float


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: Literal["primitive-set/1"]
    primitives: tuple[_Entry, ...]


def write_json(primitives: PrimitiveSet, path: Path) -> None:
    """Write the set with named numbers, readable and editable by hand."""
    entries: list[dict[str, Any]] = []
    for item in primitives.primitives:
        names = SIZE_NAMES[item.kind]
        entries.append(
            {
                "kind": item.kind,
                "operation": "subtract" if item.subtract else "union",
                "centre": _rounded(item.centre),
                "size": dict(zip(names, _rounded(item.size[: len(names)]), strict=True)),
                "rotation": [_rounded(row) for row in item.rotation],
                "mirror": [axis for axis, on in (("x", item.mirror_x), ("z", item.mirror_z)) if on],
                "colour_srgb": _rounded(item.colour),
                "roughness": round(item.roughness, 6),
                "metallic": round(item.metallic, 6),
            }
        )
    document = {"format": FORMAT, "primitives": entries}
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=1))


def read_json(path: Path) -> PrimitiveSet:
    """Read what `write_json` wrote, or what a person edited. Raises `InvalidPrimitives`."""
    try:
        file = msgspec.json.decode(path.read_bytes(), type=_File)
    except msgspec.DecodeError as error:
        raise InvalidPrimitives(f"{path.name}: {error}") from error
    found: list[Primitive] = []
    for index, entry in enumerate(file.primitives):
        names = SIZE_NAMES[entry.kind]
        if set(entry.size) != set(names):
            raise InvalidPrimitives(f"primitive {index}: a {entry.kind} has the sizes {', '.join(names)}")
        sizes = [entry.size[name] for name in names] + [0.0] * (4 - len(names))
        found.append(
            Primitive(
                kind=entry.kind,
                subtract=entry.operation == "subtract",
                centre=entry.centre,
                size=(sizes[0], sizes[1], sizes[2], sizes[3]),
                rotation=entry.rotation,
                mirror_x="x" in entry.mirror,
                mirror_z="z" in entry.mirror,
                colour=entry.colour_srgb,
                roughness=entry.roughness,
                metallic=entry.metallic,
            )
        )
    return PrimitiveSet(primitives=tuple(found))


def _rounded(values: tuple[float, ...]) -> list[float]:
    return [round(float(value), 6) for value in values]
