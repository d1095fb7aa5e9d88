"""Furniture and household things, built from at most 16 primitives."""

from inference.training.kit import Kit, ObjectKind, Part, turn
from inference.training.words import EARTHEN, METALS, SOFT, STONES, WOODS


def _chair(k: Kit) -> None:
    w, d, t = k.x(0.36, 0.46), k.z(0.36, 0.46), k.t(0.04, 0.06)
    leg, back = k.y(0.42, 0.55), k.y(0.42, 0.6)
    k.box("seat", (0, 0, 0), (w, t, d), rounding=0.02)
    k.box("legs", (w - t, -leg / 2 - t, d - t), (t, leg / 2, t), rounding=0.01, mirror_x=True, mirror_z=True)
    if k.chance(0.5):
        k.box("back", (0, back / 2, -d + t), (w, back / 2 + t, t * 0.9), rounding=0.02)
    else:  # a slatted back
        k.box("back", (w - t, back / 2, -d + t), (t, back / 2 + t, t * 0.9), rounding=0.01, mirror_x=True)
        k.box("back", (0, back * 0.85, -d + t), (w, back * 0.13, t * 0.7), rounding=0.01)
        k.box("back", (0, back * 0.42, -d + t), (w, back * 0.1, t * 0.7), rounding=0.01)


def _armchair(k: Kit) -> None:
    w, d, h = k.x(0.34, 0.44), k.z(0.42, 0.5), k.y(0.2, 0.27)
    arm, back, r = k.t(0.11, 0.16), k.y(0.5, 0.66), k.u(0.03, 0.07)
    _seating(k, w, d, (h, arm, back, r))


def _sofa(k: Kit) -> None:
    w, d, h = k.x(0.95, 1.3), k.z(0.38, 0.46), k.y(0.19, 0.25)
    arm, back, r = k.t(0.11, 0.16), k.y(0.38, 0.5), k.u(0.03, 0.07)
    _seating(k, w, d, (h, arm, back, r))
    if k.chance(0.5):
        k.box("cushions", (w * 0.5, h + 0.05, d * 0.08), (w * 0.48, 0.06, d * 0.85), rounding=0.04, mirror_x=True)


def _seating(k: Kit, w: float, d: float, sizes: tuple[float, float, float, float]) -> None:
    h, arm, back, r = sizes
    leg = k.u(0.06, 0.12)
    k.box("seat", (0, 0, 0), (w, h, d), rounding=r)
    k.box("back", (0, back - h, -d + 0.08), (w, back, k.u(0.1, 0.14)), rounding=r)
    k.box("arms", (w + arm, h * 0.45, 0), (arm, h * k.u(1.4, 1.6), d), rounding=r, mirror_x=True)
    k.cone("legs", (w, -h - leg, d * 0.8), (leg, 0.035, 0.05), mirror_x=True, mirror_z=True)


def _stool(k: Kit) -> None:
    r, t, leg = k.x(0.3, 0.4), k.t(0.045, 0.06), k.y(0.6, 0.9)
    lean = k.u(0.0, 9.0)
    if k.chance(0.7):
        k.cone("seat", (0, 0, 0), (t, r, r), rounding=0.02)
    else:
        k.box("seat", (0, 0, 0), (r, t, r), rounding=0.02)
    place = r * 0.66
    tilt = turn("z", lean)
    k.cone("legs", (place, -leg / 2, place), (leg / 2, t, t), rotation=tilt, mirror_x=True, mirror_z=True)
    if k.chance(0.4):
        k.torus("legs", (0, -leg * 0.7, 0), place * 1.38, t * 0.55)


def _table(k: Kit) -> None:
    w, d, h, t = k.x(0.7, 1.0), k.z(0.42, 0.62), k.y(0.5, 0.65), k.t(0.045, 0.065)
    leg = k.t(0.05, 0.075)
    if k.chance(0.25):  # round, on one column
        k.cone("top", (0, 0, 0), (t, w * 0.75, w * 0.75), rounding=0.01)
        k.cone("legs", (0, -h / 2, 0), (h / 2, leg * 1.4, leg * 1.2))
        k.cone("legs", (0, -h, 0), (0.045, w * 0.42, w * 0.3), rounding=0.01)
        return
    k.box("top", (0, 0, 0), (w, t, d), rounding=0.015)
    k.box("legs", (w - leg, -h / 2, d - leg), (leg, h / 2, leg), rounding=0.01, mirror_x=True, mirror_z=True)


def _desk(k: Kit) -> None:
    w, d, h, t = k.x(0.75, 0.95), k.z(0.38, 0.48), k.y(0.55, 0.65), k.t(0.045, 0.06)
    k.box("top", (0, 0, 0), (w, t, d), rounding=0.01)
    side = k.x(0.2, 0.26)
    k.box("drawers", (w - side, -h / 2, 0), (side, h / 2, d * 0.92), rounding=0.01)
    for row in range(3):
        y = -h * (0.2 + 0.3 * row)
        k.box("handles", (w - side, y, d * 0.94), (side * 0.4, 0.022, 0.03), rounding=0.01)
    k.box("legs", (-w + t, -h / 2, 0), (t, h / 2, d * 0.92), rounding=0.01)


def _bed(k: Kit) -> None:
    w, d, t = k.x(0.5, 0.7), k.z(0.9, 1.05), k.t(0.09, 0.13)
    k.box("frame", (0, 0, 0), (w, t, d), rounding=0.02)
    k.box("legs", (w - 0.07, -t - 0.08, d - 0.07), (0.05, 0.1, 0.05), mirror_x=True, mirror_z=True)
    k.box("mattress", (0, t + 0.08, 0), (w * 0.96, 0.1, d * 0.96), rounding=0.05)
    k.box("headboard", (0, t + k.y(0.15, 0.25), -d), (w, k.y(0.35, 0.45), 0.05), rounding=0.03)
    k.box("blanket", (0, t + 0.12, d * 0.25), (w * 1.0, 0.085, d * 0.71), rounding=0.05)
    k.box("pillows", (w * 0.48, t + 0.22, -d * 0.7), (w * 0.38, 0.06, d * 0.16), rounding=0.05, mirror_x=True)


def _bookshelf(k: Kit) -> None:
    w, h, d, t = k.x(0.42, 0.6), k.y(0.75, 0.95), k.z(0.18, 0.25), k.t(0.035, 0.05)
    k.box("frame", (w, 0, 0), (t, h, d), mirror_x=True)
    k.box("frame", (0, 0, -d + t), (w, h, t * 0.7))
    shelves = 4
    for row in range(shelves):
        k.box("frame", (0, -h + t + (2 * h - 2 * t) * row / (shelves - 1), 0), (w, t * 0.8, d))
    for row in range(shelves - 1):
        base = -h + 2 * t + (2 * h - 2 * t) * row / (shelves - 1)
        tall, wide = k.u(0.17, 0.22) * h / 0.85, k.u(0.3, 0.8) * w
        side = -w + t + wide if k.chance(0.6) else w - t - wide
        k.box("books", (side, base + tall, k.u(-0.02, 0.03)), (wide, tall, d * 0.75))


def _lamp(k: Kit) -> None:
    h, r, top = k.y(0.45, 0.75), k.t(0.035, 0.05), k.x(0.24, 0.36)
    k.cone("base", (0, -h, 0), (0.04, k.x(0.24, 0.32), k.x(0.18, 0.24)), rounding=0.01)
    k.cone("base", (0, 0, 0), (h, r, r))
    k.cone("shade", (0, h, 0), (k.y(0.18, 0.27), top, top * k.u(0.5, 0.75)), rounding=0.01)


def _vase(k: Kit) -> None:
    r, h = k.x(0.26, 0.38), k.y(0.5, 0.75)
    neck = r * k.u(0.4, 0.6)
    lip = neck * k.u(1.15, 1.7)
    k.cone("foot", (0, -h * 0.95, 0), (h * 0.08, r * 0.62, r * 0.5), rounding=0.01)
    k.ellipsoid("body", (0, -h * 0.15, 0), (r, h * 0.82, r))
    k.cone("neck", (0, h * 0.75, 0), (h * 0.25, neck, lip))
    k.cone("body", (0, h * 0.72, 0), (h * 0.32, neck * 0.55, lip * 0.8), subtract=True)


def _mug(k: Kit) -> None:
    r, h, wall = k.x(0.36, 0.46), k.y(0.42, 0.55), k.t(0.05, 0.07)
    top = r * k.u(1.0, 1.12)
    k.cone("body", (0, 0, 0), (h, r, top), rounding=0.02)
    k.torus("handle", (r + 0.05, 0, 0), h * k.u(0.5, 0.62), wall * 1.15, rotation=turn("x", 90))
    k.cone("inside", (0, wall * 2, 0), (h, r - wall, top - wall), subtract=True)


def _bottle(k: Kit) -> None:
    r, h = k.x(0.2, 0.28), k.y(0.42, 0.55)
    neck = r * k.u(0.34, 0.45)
    k.cone("body", (0, 0, 0), (h, r, r), rounding=0.05)
    k.cone("body", (0, h + 0.09, 0), (0.14, r * 0.93, neck))
    k.cone("body", (0, h + 0.36, 0), (0.2, neck, neck))
    k.cone("label", (0, -h * 0.1, 0), (h * 0.42, r * 1.025, r * 1.025))
    k.cone("cap", (0, h + 0.56, 0), (0.055, neck * 1.25, neck * 1.25), rounding=0.01)


_SEATS = ("tall", "short", "low", "wide", "narrow", "chunky", "small", "big", "large", "little", "long")
_SLIM = (*_SEATS, "slim", "slender")

FURNITURE = (
    ObjectKind(
        names=("chair", "dining chair"),
        build=_chair,
        looks=WOODS[:5],
        materials=(*WOODS, *METALS, "plastic", "painted", "glossy"),
        parts={"seat": Part(phrase="a seat"), "legs": Part(phrase="legs"), "back": Part(phrase="a back")},
        proportions=_SLIM,
    ),
    ObjectKind(
        names=("armchair", "easy chair"),
        build=_armchair,
        looks=("brown", "beige", "grey", "leather", "navy", "tan"),
        materials=SOFT,
        parts={
            "seat": Part(phrase="a seat"),
            "back": Part(phrase="a back"),
            "arms": Part(phrase="armrests"),
            "legs": Part(phrase="legs", looks=("walnut", "oak", "ebony", "black")),
        },
        proportions=_SEATS,
    ),
    ObjectKind(
        names=("sofa", "couch"),
        build=_sofa,
        looks=("grey", "beige", "leather", "brown", "light grey", "dark blue"),
        materials=SOFT,
        parts={
            "seat": Part(phrase="a seat"),
            "back": Part(phrase="a back"),
            "arms": Part(phrase="armrests"),
            "cushions": Part(phrase="cushions"),
            "legs": Part(phrase="legs", looks=("walnut", "oak", "ebony", "black")),
        },
        proportions=_SEATS,
    ),
    ObjectKind(
        names=("stool", "bar stool"),
        build=_stool,
        looks=WOODS[:5],
        materials=(*WOODS, *METALS, "plastic", "painted"),
        parts={"seat": Part(phrase="a seat"), "legs": Part(phrase="legs")},
        proportions=_SLIM,
    ),
    ObjectKind(
        names=("table", "dining table"),
        build=_table,
        looks=WOODS[:5],
        materials=(*WOODS, *METALS, *STONES, "plastic", "painted"),
        parts={"top": Part(phrase="a top"), "legs": Part(phrase="legs")},
        proportions=_SLIM,
    ),
    ObjectKind(
        names=("desk", "writing desk"),
        build=_desk,
        looks=WOODS[:5],
        materials=(*WOODS, "metal", "steel", "painted"),
        parts={
            "top": Part(phrase="a top"),
            "drawers": Part(phrase="drawers"),
            "handles": Part(phrase="handles", looks=("brass", "steel", "black")),
            "legs": Part(phrase="legs"),
        },
        proportions=_SLIM,
    ),
    ObjectKind(
        names=("bed",),
        build=_bed,
        looks=WOODS[:5],
        materials=(*WOODS, "metal", "iron", "painted"),
        parts={
            "frame": Part(phrase="a frame"),
            "legs": Part(phrase="legs"),
            "headboard": Part(phrase="a headboard"),
            "mattress": Part(phrase="a mattress", looks=("white",)),
            "blanket": Part(phrase="a blanket", looks=("blue", "red", "teal", "beige", "grey")),
            "pillows": Part(phrase="pillows", looks=("white", "cream", "light blue")),
        },
    ),
    ObjectKind(
        names=("bookshelf", "bookcase"),
        build=_bookshelf,
        looks=WOODS[:5],
        materials=(*WOODS, "metal", "steel", "painted"),
        parts={
            "frame": Part(phrase="a frame"),
            "books": Part(phrase="books", looks=("red", "blue", "dark green", "maroon", "tan", "navy")),
        },
    ),
    ObjectKind(
        names=("lamp", "table lamp"),
        build=_lamp,
        looks=("brass", "steel", "white", "black", "oak"),
        materials=(*METALS, *WOODS[:4], *EARTHEN, "plastic"),
        parts={"base": Part(phrase="a base"), "shade": Part(phrase="a shade", looks=("cream", "white", "beige"))},
        proportions=_SLIM,
    ),
    ObjectKind(
        names=("vase",),
        build=_vase,
        looks=("terracotta", "porcelain", "clay", "jade", "cobalt blue", "teal"),
        materials=(*EARTHEN, *METALS, "glossy", "matte"),
        parts={"body": Part(phrase="a belly"), "neck": Part(phrase="a neck"), "foot": Part(phrase="a foot")},
        proportions=_SLIM,
    ),
    ObjectKind(
        names=("mug", "cup", "coffee mug"),
        build=_mug,
        looks=("white", "porcelain", "red", "blue", "terracotta"),
        materials=(*EARTHEN, *METALS, "plastic", "glossy", "matte"),
        parts={"body": Part(phrase="a body"), "handle": Part(phrase="a handle"), "inside": Part(phrase="an inside")},
    ),
    ObjectKind(
        names=("bottle", "wine bottle"),
        build=_bottle,
        looks=("dark green", "brown", "emerald", "sky blue"),
        materials=("plastic", "glossy", "ceramic", "steel", "matte"),
        parts={
            "body": Part(phrase="a body"),
            "label": Part(phrase="a label", looks=("cream", "white", "ivory")),
            "cap": Part(phrase="a cap", looks=("gold", "black", "red")),
        },
        proportions=_SLIM,
    ),
)
