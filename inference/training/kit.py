"""The kit from which the training objects are built: dimensions, paints, primitives, and the caption's words."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from inference.geometry.primitives import IDENTITY, MAX_PRIMITIVES, Kind, Matrix, Primitive
from inference.training.words import COLOURS, MATERIALS, Proportion, Rgb, jitter

Vector = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Paint:
    """The look of a part."""

    colour: Rgb
    roughness: float = 0.6
    metallic: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part that a caption can paint: `phrase` names it, `looks` is what it is when the caption is silent.

    A look is a colour word, a material word, or `""` for the look of the whole object.
    """

    phrase: str
    looks: tuple[str, ...] = ("",)


@dataclass(frozen=True, kw_only=True)
class ObjectKind:
    """One kind of object: its names, what it is made of, its parts, and the code that builds it."""

    names: tuple[str, ...]
    build: Callable[["Kit"], None]
    looks: tuple[str, ...]
    """Natural looks when the caption names none: colour or material words."""
    materials: tuple[str, ...]
    """Materials that captions of this kind may name."""
    parts: dict[str, Part]
    proportions: tuple[str, ...] = ("tall", "short", "wide", "narrow", "small", "big", "large", "little")


def look(word: str, rng: np.random.Generator) -> Paint:
    """The paint that a colour or material word stands for, with a little noise."""
    if word in COLOURS:
        return Paint(colour=jitter(COLOURS[word], rng), roughness=float(rng.uniform(0.4, 0.6)))
    material = MATERIALS[word]
    own = material.colours
    colour = own[rng.integers(len(own))] if own else COLOURS["light grey"]
    return Paint(colour=jitter(colour, rng), roughness=material.roughness, metallic=material.metallic)


def turn(axis: str, degrees: float) -> Matrix:
    """Rotation matrix about a coordinate axis, counter-clockwise seen from its tip."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    match axis:
        case "x":
            return ((1.0, 0.0, 0.0), (0.0, c, -s), (0.0, s, c))
        case "y":
            return ((c, 0.0, s), (0.0, 1.0, 0.0), (-s, 0.0, c))
        case _:
            return ((c, -s, 0.0), (s, c, 0.0), (0.0, 0.0, 1.0))


class Kit:
    """Collects the primitives of one object. Builders draw dimensions and paint parts by name."""

    def __init__(self, rng: np.random.Generator, proportion: Proportion, paints: dict[str, Paint]) -> None:
        self.rng = rng
        self.proportion = proportion
        self._paints = paints
        self.primitives: list[Primitive] = []

    def x(self, low: float, high: float) -> float:
        """A random length along x, after the caption's proportions; `y`, `z`, `t` (thickness) likewise."""
        return float(self.rng.uniform(low, high)) * self.proportion.width

    def y(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high)) * self.proportion.height

    def z(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high)) * self.proportion.depth

    def t(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high)) * self.proportion.thickness

    def u(self, low: float, high: float) -> float:
        """A random number that no word changes."""
        return float(self.rng.uniform(low, high))

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def box(self, part: str, centre: Vector, half: Vector, **more: object) -> None:
        """A box by its half extents; `rounding=` rounds its edges."""
        self._add("box", part, centre, half, more)

    def cone(self, part: str, centre: Vector, size: Vector, **more: object) -> None:
        """A capped cone along y: half height, radius at the bottom, radius at the top."""
        self._add("cone", part, centre, size, more)

    def ellipsoid(self, part: str, centre: Vector, radii: Vector, **more: object) -> None:
        self._add("ellipsoid", part, centre, radii, more)

    def torus(self, part: str, centre: Vector, ring: float, tube: float, **more: object) -> None:
        """A ring around y."""
        self._add("torus", part, centre, (ring, tube, 0.0), more)

    def prism(self, part: str, centre: Vector, half: Vector, **more: object) -> None:
        """A roof: a triangle in xy with its point up, extruded along z."""
        self._add("prism", part, centre, half, more)

    def _add(self, kind: Kind, part: str, centre: Vector, size: Vector, more: dict[str, object]) -> None:
        paint = self._paints[part]
        rounding = more.get("rounding", 0.0)
        rotation = more.get("rotation", IDENTITY)
        assert isinstance(rounding, float)
        assert isinstance(rotation, tuple)
        if kind in ("torus", "ellipsoid"):
            rounding = 0.0
        elif kind == "cone":
            rounding = min(rounding, 0.8 * size[0], 0.6 * max(size[1], size[2]))
        else:
            rounding = min(rounding, 0.8 * min(size))
        self.primitives.append(
            Primitive(
                kind=kind,
                centre=centre,
                size=(*size, rounding),
                rotation=rotation,
                subtract=bool(more.get("subtract", False)),
                mirror_x=bool(more.get("mirror_x", False)),
                mirror_z=bool(more.get("mirror_z", False)),
                colour=paint.colour,
                roughness=paint.roughness,
                metallic=paint.metallic,
            )
        )

    def fitted(self, extent: float = 0.9) -> tuple[Primitive, ...]:
        """The primitives scaled so that the largest half extent is `extent`, standing centred in height.

        x and z keep their origin, which the mirror planes go through.
        """
        assert 1 <= len(self.primitives) <= MAX_PRIMITIVES, len(self.primitives)
        low, high = np.full(3, np.inf), np.full(3, -np.inf)
        for item in self.primitives:
            if not item.subtract:
                reach = np.abs(np.array(item.rotation)) @ item.local_half_extents()
                low = np.minimum(low, np.array(item.centre) - reach)
                high = np.maximum(high, np.array(item.centre) + reach)
        lift = (low[1] + high[1]) / 2
        widest = max(abs(low[0]), abs(high[0]), abs(low[2]), abs(high[2]), (high[1] - low[1]) / 2)
        factor = extent / widest
        return tuple(
            replace(
                item,
                centre=(
                    float(item.centre[0] * factor),
                    float((item.centre[1] - lift) * factor),
                    float(item.centre[2] * factor),
                ),
                size=_four(item.size, factor),
            )
            for item in self.primitives
        )


def _four(size: tuple[float, float, float, float], factor: float) -> tuple[float, float, float, float]:
    return (size[0] * factor, size[1] * factor, size[2] * factor, size[3] * factor)
