"""The vocabulary of the captions: colours, materials and words about proportions, with what they mean."""

from dataclasses import dataclass

import numpy as np

Rgb = tuple[float, float, float]


def _rgb(code: str) -> Rgb:
    return (int(code[0:2], 16) / 255, int(code[2:4], 16) / 255, int(code[4:6], 16) / 255)


# fmt: off
# sRGB, hexadecimal. Every common colour word is here: what is not trained comes out as MiniLM's nearest.
COLOURS: dict[str, Rgb] = {
    name: _rgb(code)
    for name, code in {
        "red": "d02020", "crimson": "c8143c", "scarlet": "e02a10", "maroon": "701822", "burgundy": "6e1030",
        "ruby": "b01048", "pink": "f090b0", "hot pink": "f04c9c", "rose": "e06080", "magenta": "d020c0",
        "salmon": "f58a74", "coral": "f87858", "peach": "fcc8a4", "orange": "f08018", "rust": "a84c1c",
        "amber": "f8b010", "gold-coloured": "d8a830", "yellow": "f4dc18", "mustard": "c8a028",
        "lemon yellow": "f8f050", "cream": "f8f0d0", "ivory": "f6f2e0", "beige": "dccca8", "tan": "c8a47c",
        "khaki": "b4a878", "brown": "784824", "chocolate brown": "502c18", "dark brown": "4a2c18",
        "light brown": "a87848", "olive": "788030", "lime": "a0e020", "green": "209038", "dark green": "104c24",
        "light green": "90dc90", "emerald": "109c60", "forest green": "1c6028", "mint": "a8ecc8",
        "sage": "9cac88", "teal": "108080", "turquoise": "38d0c8", "cyan": "20d0e8", "aqua": "50d8e0",
        "sky blue": "80c4f0", "light blue": "98c8f0", "blue": "2048c8", "royal blue": "3058d8",
        "cobalt blue": "1040a0", "navy": "182858", "navy blue": "182858", "dark blue": "142068",
        "indigo": "381c88", "violet": "7c38c8", "purple": "781c98", "lavender": "c0a8e8", "lilac": "c8a0d0",
        "plum": "6c2860", "mauve": "b888a8", "white": "f4f4f4", "snow white": "fafafa", "grey": "848484",
        "gray": "848484", "light grey": "bcbcbc", "dark grey": "484848", "charcoal": "34383c",
        "charcoal grey": "34383c", "slate": "58687c", "silver-grey": "b4b8bc", "black": "141414",
        "jet black": "0c0c0c",
    }.items()
}
# fmt: on


@dataclass(frozen=True, kw_only=True)
class Material:
    """How a material looks: roughness and metallic as glTF means them, and its own colours (sRGB)."""

    roughness: float
    metallic: float = 0.0
    colours: tuple[Rgb, ...] = ()


def _own(*codes: str) -> tuple[Rgb, ...]:
    return tuple(_rgb(code) for code in codes)


MATERIALS: dict[str, Material] = {
    "wooden": Material(roughness=0.65, colours=_own("96602f", "8a5428", "a06c3a")),
    "oak": Material(roughness=0.6, colours=_own("b08850", "ac8048")),
    "walnut": Material(roughness=0.55, colours=_own("5c3c24", "644028")),
    "mahogany": Material(roughness=0.45, colours=_own("6c2c1c", "702818")),
    "pine": Material(roughness=0.65, colours=_own("d8b078", "dcb47c")),
    "ebony": Material(roughness=0.4, colours=_own("2c2420")),
    "bamboo": Material(roughness=0.6, colours=_own("d4c080", "ccb870")),
    "metal": Material(roughness=0.35, metallic=1.0, colours=_own("a8acb0", "9ca0a4")),
    "steel": Material(roughness=0.3, metallic=1.0, colours=_own("b0b4b8")),
    "iron": Material(roughness=0.55, metallic=1.0, colours=_own("5c5c60")),
    "chrome": Material(roughness=0.08, metallic=1.0, colours=_own("d0d4d8")),
    "silver": Material(roughness=0.2, metallic=1.0, colours=_own("d4d4d8", "ccccd0")),
    "gold": Material(roughness=0.2, metallic=1.0, colours=_own("f0b838", "e8b030")),
    "golden": Material(roughness=0.2, metallic=1.0, colours=_own("f0b838", "e8b030")),
    "copper": Material(roughness=0.3, metallic=1.0, colours=_own("d07c50")),
    "bronze": Material(roughness=0.35, metallic=1.0, colours=_own("a8743c")),
    "brass": Material(roughness=0.3, metallic=1.0, colours=_own("d0ac50")),
    "rusty": Material(roughness=0.85, metallic=0.5, colours=_own("8c4c28", "94502c")),
    "marble": Material(roughness=0.2, colours=_own("ece8e4", "e4e0dc")),
    "stone": Material(roughness=0.9, colours=_own("8c8880", "94908a")),
    "granite": Material(roughness=0.6, colours=_own("706c6c")),
    "concrete": Material(roughness=0.95, colours=_own("a0a09c")),
    "sandstone": Material(roughness=0.9, colours=_own("d4b488")),
    "clay": Material(roughness=0.85, colours=_own("b87050")),
    "terracotta": Material(roughness=0.85, colours=_own("c46840")),
    "jade": Material(roughness=0.25, colours=_own("48a878")),
    "plastic": Material(roughness=0.4),
    "glossy": Material(roughness=0.12),
    "shiny": Material(roughness=0.12),
    "matte": Material(roughness=0.95),
    "ceramic": Material(roughness=0.2),
    "porcelain": Material(roughness=0.12, colours=_own("f4f4f0")),
    "leather": Material(roughness=0.5, colours=_own("6c3c20", "744024")),
    "velvet": Material(roughness=0.95),
    "fabric": Material(roughness=0.95),
    "rubber": Material(roughness=0.9),
    "painted": Material(roughness=0.5),
}

# What a kind of material may be asked for: no leather rockets in the captions.
WOODS = ("wooden", "oak", "walnut", "mahogany", "pine", "ebony", "bamboo")
METALS = ("metal", "steel", "iron", "chrome", "silver", "gold", "golden", "copper", "bronze", "brass", "rusty")
STONES = ("marble", "stone", "granite", "concrete", "sandstone")
SOFT = ("leather", "velvet", "fabric")
EARTHEN = ("clay", "terracotta", "ceramic", "porcelain", "jade", "marble")
FINISHES = ("plastic", "glossy", "shiny", "matte", "painted")


@dataclass(frozen=True, kw_only=True)
class Proportion:
    """Factors on an object's width (x), height (y), depth (z) and on the thickness of its thin parts."""

    width: float = 1.0
    height: float = 1.0
    depth: float = 1.0
    thickness: float = 1.0


PROPORTIONS: dict[str, Proportion] = {
    "tall": Proportion(height=1.4),
    "high": Proportion(height=1.35),
    "short": Proportion(height=0.7),
    "low": Proportion(height=0.68),
    "wide": Proportion(width=1.4),
    "narrow": Proportion(width=0.7),
    "long": Proportion(width=1.25, depth=1.25, height=0.9),
    "slim": Proportion(width=0.78, depth=0.8, thickness=0.8),
    "slender": Proportion(width=0.78, depth=0.8, thickness=0.8),
    "chunky": Proportion(width=1.15, depth=1.15, thickness=1.5),
    "thick": Proportion(thickness=1.5),
    "small": Proportion(),  # an object fills the same box whatever its size
    "big": Proportion(),
    "large": Proportion(),
    "little": Proportion(),
}


def jitter(colour: Rgb, rng: np.random.Generator, amount: float = 0.02) -> Rgb:
    """The colour with a little noise, so that a word is a neighbourhood and not a point."""
    noisy = np.clip(np.asarray(colour) + rng.normal(0.0, amount, 3), 0.0, 1.0)
    return (float(noisy[0]), float(noisy[1]), float(noisy[2]))
