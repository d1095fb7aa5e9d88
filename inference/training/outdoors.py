"""Vehicles, buildings, plants, figures and tools, built from at most 16 primitives."""

from inference.training.kit import Kit, ObjectKind, Part, turn
from inference.training.words import FINISHES, METALS, STONES, WOODS


def _wheels(k: Kit, x: float, z: float, r: float) -> None:
    on_side = turn("z", 90)
    k.cone("wheels", (x, 0, z), (0.07, r, r), rounding=0.02, rotation=on_side, mirror_x=True, mirror_z=True)
    k.cone("hubs", (x + 0.05, 0, z), (0.035, r * 0.5, r * 0.5), rotation=on_side, mirror_x=True, mirror_z=True)


def _car(k: Kit) -> None:
    w, d, h, r = k.x(0.36, 0.42), k.z(0.8, 0.95), k.y(0.12, 0.16), k.t(0.15, 0.18)
    top = k.y(0.13, 0.17)
    _wheels(k, w, d * 0.6, r)
    k.box("body", (0, r * 0.4 + h, 0), (w, h, d), rounding=0.06)
    cabin, back = d * k.u(0.45, 0.55), -d * k.u(0.1, 0.2)
    k.box("windows", (0, r * 0.4 + 2 * h + top * 0.7, back), (w * 0.86, top * 0.8, cabin), rounding=0.06)
    k.box("roof", (0, r * 0.4 + 2 * h + top * 1.5, back), (w * 0.88, 0.05, cabin * 0.97), rounding=0.03)
    k.ellipsoid("lights", (w * 0.68, r * 0.4 + h * 1.1, d * 0.98), (0.07, 0.05, 0.05), mirror_x=True)


def _truck(k: Kit) -> None:
    w, r = k.x(0.32, 0.38), k.t(0.14, 0.17)
    cab, load, high = k.z(0.22, 0.28), k.z(0.5, 0.62), k.y(0.32, 0.42)
    _wheels(k, w * 0.95, (cab + load) * 0.66, r)
    k.box("chassis", (0, r * 0.6, 0), (w * 0.9, 0.06, cab + load), rounding=0.01)
    k.box("cab", (0, r + high * 0.75, load), (w, high * 0.72, cab), rounding=0.05)
    k.box("windows", (0, r + high * 1.0, load + cab * 0.3), (w * 1.02, high * 0.25, cab * 0.74), rounding=0.02)
    k.box("cargo box", (0, r + high, -cab), (w * 1.04, high, load * 0.98), rounding=0.02)


def _rocket(k: Kit) -> None:
    r, h, nose = k.x(0.2, 0.27), k.y(0.5, 0.65), k.y(0.2, 0.28)
    k.cone("body", (0, 0, 0), (h, r, r * 0.92), rounding=0.01)
    k.cone("nose", (0, h + nose, 0), (nose, r * 0.95, 0.025), rounding=0.01)
    fin = k.x(0.2, 0.28)
    size = (fin, k.y(0.2, 0.28), 0.035)
    k.prism("fins", (r + fin * 0.35, -h + 0.08, 0), size, mirror_x=True)
    k.prism("fins", (0, -h + 0.08, r + fin * 0.35), size, rotation=turn("y", 90), mirror_z=True)
    k.cone("engine", (0, -h - 0.06, 0), (0.08, r * 0.75, r * 0.5))
    k.ellipsoid("window", (0, h * 0.45, r * 0.9), (0.1, 0.1, 0.05))


def _airplane(k: Kit) -> None:
    r, d, span, t = k.x(0.12, 0.16), k.z(0.75, 0.95), k.x(0.75, 0.98), k.t(0.035, 0.045)
    k.ellipsoid("body", (0, 0, 0), (r, r, d))
    k.box("wings", (span / 2, -r * 0.2, d * 0.08), (span / 2, t, k.z(0.14, 0.2)), rounding=0.02, mirror_x=True)
    k.box("tail", (0.18, r * 0.3, -d * 0.88), (0.2, t * 0.8, 0.09), rounding=0.02, mirror_x=True)
    k.box("tail", (0, r + 0.1, -d * 0.88), (t * 0.8, 0.2, 0.1), rounding=0.02)
    k.ellipsoid("cockpit", (0, r * 0.65, d * 0.5), (r * 0.6, r * 0.5, d * 0.17))
    engine = (0.13, 0.07, 0.085)
    k.cone("engines", (span * 0.45, -r * 0.6, d * 0.18), engine, rotation=turn("x", 90), mirror_x=True)


def _boat(k: Kit) -> None:
    w, d, h = k.x(0.28, 0.36), k.z(0.75, 0.95), k.y(0.2, 0.26)
    k.ellipsoid("hull", (0, 0, 0), (w, h * 1.2, d))
    k.box("hull", (0, h * 1.4, 0), (w * 2, h * 1.15, d * 1.5), subtract=True)
    k.box("deck", (0, h * 0.22, 0), (w * 0.8, 0.035, d * 0.72), rounding=0.02)
    mast = k.y(0.5, 0.65)
    k.cone("mast", (0, mast, 0), (mast, 0.035, 0.03))
    size = (0.02, mast * 0.75, d * 0.42)
    k.prism("sail", (0, mast * 1.1, -d * 0.05), (size[2], size[1], 0.025), rotation=turn("y", 90))
    if k.chance(0.5):
        k.box("cabin", (0, h * 0.5, -d * 0.42), (w * 0.5, 0.13, d * 0.18), rounding=0.03)


def _tree(k: Kit) -> None:
    h, r, crown = k.y(0.45, 0.65), k.t(0.08, 0.12), k.x(0.38, 0.5)
    k.cone("trunk", (0, 0, 0), (h, r * 1.25, r * 0.8))
    k.ellipsoid("leaves", (0, h + crown * 0.6, 0), (crown, crown * k.u(0.85, 1.0), crown))
    side = crown * 0.55
    k.ellipsoid("leaves", (side, h + crown * 0.4, k.u(-0.1, 0.1)), (crown * 0.7,) * 3, mirror_x=True)
    k.ellipsoid("leaves", (0, h + crown * k.u(0.3, 0.6), side), (crown * 0.72,) * 3, mirror_z=k.chance(0.5))


def _pine(k: Kit) -> None:
    r, h = k.x(0.42, 0.55), k.y(0.3, 0.4)
    k.cone("trunk", (0, -h * 0.5, 0), (h * 0.9, k.t(0.09, 0.11), 0.07))
    for row in range(3):
        size = 1.0 - 0.24 * row
        k.cone("leaves", (0, h * (0.7 + 0.95 * row), 0), (h * 0.72, r * size, r * size * (0.2 if row < 2 else 0.04)))


def _mushroom(k: Kit) -> None:
    r, h, cap = k.x(0.5, 0.65), k.y(0.28, 0.42), k.y(0.3, 0.42)
    k.ellipsoid("cap", (0, h, 0), (r, cap, r))
    k.box("cap", (0, h - cap - 0.04, 0), (r * 1.3, cap, r * 1.3), subtract=True)
    k.cone("stem", (0, 0.03, 0), (h, k.t(0.18, 0.24), k.t(0.13, 0.17)), rounding=0.03)
    spot = 0.085 * r / 0.55
    k.ellipsoid("spots", (0, h + cap * 0.98, 0), (spot, spot * 0.6, spot))
    k.ellipsoid("spots", (r * 0.52, h + cap * 0.72, r * 0.42), (spot,) * 3, mirror_x=True, mirror_z=True)
    k.ellipsoid("spots", (r * 0.82, h + cap * 0.5, 0), (spot,) * 3, mirror_x=True)
    k.ellipsoid("spots", (0, h + cap * 0.5, r * 0.82), (spot,) * 3, mirror_z=True)


def _cactus(k: Kit) -> None:
    h, r = k.y(0.5, 0.65), k.t(0.14, 0.18)
    k.cone("pot", (0, -h - 0.1, 0), (0.18, r * 1.3, r * 1.8), rounding=0.02)
    k.cone("body", (0, 0, 0), (h, r, r), rounding=r * 0.55)
    for sign, y in ((1.0, k.u(-0.15, 0.05)), (-1.0, k.u(0.05, 0.25))):
        reach, up = r + 0.14, k.y(0.14, 0.22)
        k.cone("body", (sign * reach * 0.6, y, 0), (reach * 0.55, r * 0.55, r * 0.55), rotation=turn("z", 90))
        k.cone("body", (sign * reach * 1.1, y + up, 0), (up + 0.06, r * 0.58, r * 0.58), rounding=r * 0.3)
    k.ellipsoid("flower", (0, h + 0.03, 0), (r * 0.5, r * 0.4, r * 0.5))


def _flower(k: Kit) -> None:
    h, r = k.y(0.6, 0.8), k.x(0.13, 0.17)
    face = h + 0.05
    k.cone("stem", (0, 0, 0), (h, k.t(0.035, 0.045), 0.035))
    k.ellipsoid("leaves", (0.2, -h * 0.3, 0), (0.22, 0.05, 0.09), rotation=turn("z", 28), mirror_x=True)
    petal = (r * 1.15, r * 0.8, 0.06)
    k.ellipsoid("petals", (r * 1.7, face, 0.05), petal, mirror_x=True)
    for degrees in (60.0, -60.0):
        x, y = r * 1.7 * 0.5, r * 1.7 * (0.866 if degrees > 0 else -0.866)
        k.ellipsoid("petals", (x, face + y, 0.05), petal, rotation=turn("z", degrees), mirror_x=True)
    k.ellipsoid("centre", (0, face, 0.08), (r, r, 0.09))


def _house(k: Kit) -> None:
    w, d, h, roof = k.x(0.5, 0.65), k.z(0.45, 0.6), k.y(0.32, 0.42), k.y(0.22, 0.32)
    k.box("walls", (0, 0, 0), (w, h, d))
    k.prism("roof", (0, h + roof, 0), (w * 1.2, roof, d * 1.12), rounding=0.01)
    k.box("door", (0, -h + 0.24, d), (0.11, 0.24, 0.03), rounding=0.01)
    k.box("windows", (w * 0.6, 0.02, d), (0.1, 0.1, 0.025), mirror_x=True)
    k.box("windows", (w, 0.02, d * 0.45), (0.025, 0.1, 0.1), mirror_x=True, mirror_z=True)
    if k.chance(0.8):
        k.box("chimney", (w * 0.55, h + roof * 1.3, -d * 0.4), (0.075, roof * 0.9, 0.075))


def _castle(k: Kit) -> None:
    r, h = k.x(0.34, 0.44), k.y(0.62, 0.8)
    k.cone("walls", (0, 0, 0), (h, r * 1.08, r), rounding=0.01)
    k.cone("walls", (0, h, 0), (0.1, r * 1.0, r * 1.22))
    ring, merlon = r * 1.08, (0.075, 0.1, 0.075)
    corner, diagonal = (ring * 0.72, h + 0.17, ring * 0.72), turn("y", 45)
    k.box("battlements", corner, merlon, rotation=diagonal, mirror_x=True, mirror_z=True)
    k.box("battlements", (ring, h + 0.17, 0), merlon, mirror_x=True)
    k.box("battlements", (0, h + 0.17, ring), merlon, mirror_z=True)
    k.cone("walls", (0, h + 0.12, 0), (0.1, r * 0.9, r * 0.9), subtract=True)
    k.box("door", (0, -h + 0.2, r * 1.03), (0.12, 0.2, 0.05), rounding=0.02)
    k.box("windows", (0, h * 0.25, r), (0.06, 0.12, 0.05), rounding=0.02)
    if k.chance(0.35):
        k.cone("roof", (0, h + 0.42, 0), (0.32, r * 0.95, 0.02))


def _robot(k: Kit) -> None:
    w, h, d = k.x(0.28, 0.36), k.y(0.32, 0.4), k.z(0.2, 0.26)
    head, leg = k.y(0.17, 0.22), k.y(0.18, 0.26)
    k.box("body", (0, 0, 0), (w, h, d), rounding=0.04)
    k.box("head", (0, h + head + 0.07, 0), (w * 0.72, head, d * 0.85), rounding=0.04)
    k.cone("body", (0, h + 0.04, 0), (0.07, 0.09, 0.09))
    k.ellipsoid("eyes", (w * 0.32, h + head * 1.2 + 0.07, d * 0.85), (0.065, 0.065, 0.045), mirror_x=True)
    k.box("arms", (w + 0.1, -0.03, 0), (k.t(0.065, 0.085), h * 0.85, 0.08), rounding=0.03, mirror_x=True)
    k.box("legs", (w * 0.5, -h - leg, 0), (k.t(0.09, 0.11), leg, 0.1), rounding=0.02, mirror_x=True)
    k.box("legs", (w * 0.5, -h - 2 * leg, 0.05), (0.12, 0.05, 0.17), rounding=0.02, mirror_x=True)
    if k.chance(0.7):
        k.cone("antenna", (0, h + 2 * head + 0.17, 0), (0.11, 0.03, 0.03))
        k.ellipsoid("antenna", (0, h + 2 * head + 0.29, 0), (0.055,) * 3)
    k.box("panel", (0, h * 0.2, d), (w * 0.55, h * 0.35, 0.025), rounding=0.02)


def _guitar(k: Kit) -> None:
    r, t, neck = k.x(0.28, 0.34), k.z(0.09, 0.12), k.y(0.4, 0.5)
    flat = turn("x", 90)
    k.cone("body", (0, 0, 0), (t, r, r), rounding=0.03, rotation=flat)
    k.cone("body", (0, r * 1.05, 0), (t, r * 0.75, r * 0.75), rounding=0.03, rotation=flat)
    k.box("neck", (0, r * 1.5 + neck, t * 0.8), (k.t(0.05, 0.065), neck, 0.035), rounding=0.01)
    k.box("headstock", (0, r * 1.5 + 2 * neck + 0.08, t * 0.8), (0.085, 0.12, 0.035), rounding=0.01)
    k.cone("sound hole", (0, r * 0.62, t), (0.015, r * 0.3, r * 0.3), rotation=flat)
    k.box("bridge", (0, -r * 0.35, t), (r * 0.4, 0.035, 0.035), rounding=0.01)


def _sword(k: Kit) -> None:
    h, w, grip = k.y(0.6, 0.75), k.t(0.065, 0.09), k.y(0.14, 0.18)
    k.box("blade", (0, h, 0), (w, h, 0.03), rounding=0.01)
    k.prism("blade", (0, 2 * h + w * 1.2, 0), (w, w * 1.25, 0.03))
    k.box("guard", (0, 0, 0), (k.x(0.24, 0.32), k.t(0.04, 0.05), 0.06), rounding=0.02)
    k.cone("grip", (0, -grip, 0), (grip, 0.045, 0.05))
    k.ellipsoid("pommel", (0, -2 * grip, 0), (0.075, 0.075, 0.075))


def _snowman(k: Kit) -> None:
    r, up = k.x(0.38, 0.44), k.proportion.height
    middle, head = r * k.u(0.7, 0.78), r * k.u(0.48, 0.55)
    y1, y2 = (r + middle) * 0.8 * up, (r + 2 * middle + head) * 0.78 * up
    k.ellipsoid("body", (0, 0, 0), (r, r * up, r))
    k.ellipsoid("body", (0, y1, 0), (middle, middle * up, middle))
    k.ellipsoid("body", (0, y2, 0), (head, head * up, head))
    k.cone("nose", (0, y2, head + 0.08), (0.11, 0.05, 0.01), rotation=turn("x", 90))
    k.ellipsoid("buttons", (head * 0.38, y2 + head * 0.3, head * 0.85), (0.035,) * 3, mirror_x=True)
    k.ellipsoid("buttons", (0, y1 + middle * 0.3, middle * 0.96), (0.04,) * 3)
    k.ellipsoid("buttons", (0, y1 - middle * 0.2, middle), (0.04,) * 3)
    k.torus("scarf", (0, y2 - head * 0.85 * up, 0), head * 0.75, 0.065)
    k.cone("hat", (0, y2 + head * 0.85 * up, 0), (0.025, head, head))
    k.cone("hat", (0, y2 + head * 0.85 * up + 0.15, 0), (0.15, head * 0.62, head * 0.62), rounding=0.01)


def _hammer(k: Kit) -> None:
    h, w, t = k.y(0.65, 0.85), k.x(0.2, 0.27), k.t(0.085, 0.11)
    k.cone("handle", (0, 0, 0), (h, t * 0.62, t * 0.5), rounding=0.01)
    k.box("head", (0, h, 0), (w * 0.7, t, t), rounding=0.02)
    k.cone("head", (w, h, 0), (w * 0.4, t * 1.2, t * 1.2), rotation=turn("z", 90), rounding=0.02)
    k.prism("head", (-w * 1.1, h, 0), (t, w * 0.55, t), rotation=turn("z", 90))


_WINDOW = ("sky blue", "slate", "light blue")
_PAINTED = ("red", "blue", "white", "yellow", "grey", "black", "green", "silver")
_SLIM = ("tall", "short", "wide", "narrow", "slim", "slender", "thick", "small", "big", "large", "little", "high")
_LONG = ("tall", "short", "low", "wide", "narrow", "long", "small", "big", "large", "little", "slim", "chunky")
_CAST = ("plastic", "metal", "steel", "gold", "copper", "chrome", "shiny", "matte", "glossy")

OUTDOORS = (
    ObjectKind(
        names=("car", "automobile"),
        build=_car,
        looks=_PAINTED,
        materials=(*_CAST, *FINISHES, "rusty", "wooden"),
        parts={
            "body": Part(phrase="a body"),
            "roof": Part(phrase="a roof"),
            "wheels": Part(phrase="wheels", looks=("rubber", "black")),
            "hubs": Part(phrase="hubcaps", looks=("steel", "light grey")),
            "windows": Part(phrase="windows", looks=_WINDOW),
            "lights": Part(phrase="headlights", looks=("cream", "lemon yellow")),
        },
        proportions=_LONG,
    ),
    ObjectKind(
        names=("truck", "lorry"),
        build=_truck,
        looks=_PAINTED,
        materials=(*_CAST, *FINISHES, "rusty"),
        parts={
            "cab": Part(phrase="a cab"),
            "cargo box": Part(phrase="a cargo box"),
            "chassis": Part(phrase="a chassis", looks=("dark grey", "black")),
            "wheels": Part(phrase="wheels", looks=("rubber", "black")),
            "hubs": Part(phrase="hubcaps", looks=("steel", "light grey")),
            "windows": Part(phrase="windows", looks=_WINDOW),
        },
        proportions=_LONG,
    ),
    ObjectKind(
        names=("rocket", "space rocket", "spaceship"),
        build=_rocket,
        looks=("white", "silver", "red", "light grey", "blue"),
        materials=(*_CAST, *METALS[:6], "wooden"),
        parts={
            "body": Part(phrase="a body"),
            "nose": Part(phrase="a nose", looks=("", "", "red", "orange")),
            "fins": Part(phrase="fins", looks=("", "", "red", "orange", "dark grey")),
            "engine": Part(phrase="an engine", looks=("dark grey", "iron")),
            "window": Part(phrase="a window", looks=_WINDOW),
        },
        proportions=_SLIM,
    ),
    ObjectKind(
        names=("airplane", "plane", "aeroplane", "aircraft"),
        build=_airplane,
        looks=("white", "light grey", "silver", "red", "blue"),
        materials=(*_CAST, "wooden", "steel"),
        parts={
            "body": Part(phrase="a body"),
            "wings": Part(phrase="wings", looks=("", "", "light grey")),
            "tail": Part(phrase="a tail", looks=("", "", "red", "blue")),
            "cockpit": Part(phrase="a cockpit", looks=_WINDOW),
            "engines": Part(phrase="engines", looks=("dark grey", "steel")),
        },
        proportions=_LONG,
    ),
    ObjectKind(
        names=("boat", "sailing boat", "sailboat"),
        build=_boat,
        looks=("wooden", "white", "red", "blue", "oak"),
        materials=(*WOODS, "plastic", "steel", "painted"),
        parts={
            "hull": Part(phrase="a hull"),
            "deck": Part(phrase="a deck", looks=("oak", "pine")),
            "mast": Part(phrase="a mast", looks=("oak", "walnut")),
            "sail": Part(phrase="a sail", looks=("white", "cream", "white")),
            "cabin": Part(phrase="a cabin", looks=("white", "")),
        },
        proportions=_LONG,
    ),
    ObjectKind(
        names=("tree", "leafy tree", "oak tree"),
        build=_tree,
        looks=("green", "forest green", "dark green", "olive"),
        materials=("plastic", "gold", "bronze", "copper"),
        parts={"leaves": Part(phrase="leaves"), "trunk": Part(phrase="a trunk", looks=("brown", "dark brown"))},
        proportions=_SLIM,
    ),
    ObjectKind(
        names=("pine tree", "fir tree", "christmas tree"),
        build=_pine,
        looks=("forest green", "dark green", "green"),
        materials=("plastic", "gold", "silver"),
        parts={"leaves": Part(phrase="needles"), "trunk": Part(phrase="a trunk", looks=("brown", "dark brown"))},
        proportions=_SLIM,
    ),
    ObjectKind(
        names=("mushroom", "toadstool"),
        build=_mushroom,
        looks=("red", "brown", "orange", "tan"),
        materials=("plastic", "ceramic", "glossy", "wooden", "porcelain"),
        parts={
            "cap": Part(phrase="a cap"),
            "spots": Part(phrase="spots", looks=("white",)),
            "stem": Part(phrase="a stem", looks=("ivory", "cream", "beige")),
        },
        proportions=_SLIM,
    ),
    ObjectKind(
        names=("cactus",),
        build=_cactus,
        looks=("green", "forest green", "sage"),
        materials=("plastic", "ceramic", "jade"),
        parts={
            "body": Part(phrase="a body"),
            "pot": Part(phrase="a pot", looks=("terracotta", "clay")),
            "flower": Part(phrase="a flower", looks=("pink", "hot pink", "yellow")),
        },
        proportions=_SLIM,
    ),
    ObjectKind(
        names=("flower", "daisy"),
        build=_flower,
        looks=("red", "pink", "yellow", "white", "violet", "orange"),
        materials=("plastic", "porcelain", "gold"),
        parts={
            "petals": Part(phrase="petals"),
            "centre": Part(phrase="a centre", looks=("yellow", "amber", "brown")),
            "stem": Part(phrase="a stem", looks=("green", "forest green")),
            "leaves": Part(phrase="leaves", looks=("green", "forest green")),
        },
        proportions=_SLIM,
    ),
    ObjectKind(
        names=("house", "cottage"),
        build=_house,
        looks=("white", "cream", "beige", "sandstone", "tan", "light grey"),
        materials=(*STONES, "wooden", "pine", "painted"),
        parts={
            "walls": Part(phrase="walls"),
            "roof": Part(phrase="a roof", looks=("terracotta", "brown", "slate", "maroon")),
            "door": Part(phrase="a door", looks=("brown", "dark brown", "red", "dark green")),
            "windows": Part(phrase="windows", looks=_WINDOW),
            "chimney": Part(phrase="a chimney", looks=("grey", "rust")),
        },
        proportions=_SLIM,
    ),
    ObjectKind(
        names=("castle tower", "tower", "castle"),
        build=_castle,
        looks=("stone", "granite", "sandstone", "grey"),
        materials=(*STONES, "wooden"),
        parts={
            "walls": Part(phrase="walls"),
            "battlements": Part(phrase="battlements"),
            "door": Part(phrase="a door", looks=("brown", "dark brown")),
            "windows": Part(phrase="windows", looks=("dark grey", "slate")),
            "roof": Part(phrase="a roof", looks=("slate", "maroon", "terracotta")),
        },
        proportions=_SLIM,
    ),
    ObjectKind(
        names=("robot", "android"),
        build=_robot,
        looks=("silver", "steel", "light grey", "white", "blue"),
        materials=(*METALS, "plastic", "shiny"),
        parts={
            "body": Part(phrase="a body"),
            "head": Part(phrase="a head"),
            "arms": Part(phrase="arms", looks=("", "", "dark grey")),
            "legs": Part(phrase="legs", looks=("", "", "dark grey")),
            "eyes": Part(phrase="eyes", looks=("lemon yellow", "red", "cyan")),
            "antenna": Part(phrase="an antenna", looks=("dark grey", "red")),
            "panel": Part(phrase="a panel", looks=("dark grey", "sky blue", "black")),
        },
        proportions=_SLIM,
    ),
    ObjectKind(
        names=("guitar", "acoustic guitar"),
        build=_guitar,
        looks=("oak", "pine", "mahogany", "amber", "walnut"),
        materials=(*WOODS, "glossy", "plastic"),
        parts={
            "body": Part(phrase="a body"),
            "neck": Part(phrase="a neck", looks=("walnut", "ebony", "mahogany")),
            "headstock": Part(phrase="a headstock", looks=("walnut", "ebony")),
            "sound hole": Part(phrase="a sound hole", looks=("black", "jet black")),
            "bridge": Part(phrase="a bridge", looks=("ebony", "walnut")),
        },
    ),
    ObjectKind(
        names=("sword", "long sword"),
        build=_sword,
        looks=("steel", "silver", "iron"),
        materials=(*METALS, "wooden", "plastic"),
        parts={
            "blade": Part(phrase="a blade"),
            "guard": Part(phrase="a guard", looks=("gold", "brass", "iron")),
            "grip": Part(phrase="a grip", looks=("leather", "brown", "black")),
            "pommel": Part(phrase="a pommel", looks=("gold", "brass", "iron")),
        },
        proportions=("long", "short", "wide", "thick", "slim", "slender", "small", "big", "large", "tall"),
    ),
    ObjectKind(
        names=("snowman",),
        build=_snowman,
        looks=("white", "snow white"),
        materials=("plastic", "porcelain", "marble"),
        parts={
            "body": Part(phrase="a body"),
            "nose": Part(phrase="a nose", looks=("orange",)),
            "buttons": Part(phrase="buttons", looks=("black",)),
            "scarf": Part(phrase="a scarf", looks=("red", "blue", "green")),
            "hat": Part(phrase="a hat", looks=("black", "charcoal")),
        },
        proportions=_SLIM,
    ),
    ObjectKind(
        names=("hammer",),
        build=_hammer,
        looks=("steel", "iron"),
        materials=(*METALS, "wooden", "rubber"),
        parts={"head": Part(phrase="a head"), "handle": Part(phrase="a handle", looks=("wooden", "oak", "pine"))},
        proportions=("long", "short", "thick", "small", "big", "large", "slim"),
    ),
)
