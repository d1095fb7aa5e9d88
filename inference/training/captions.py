"""An object and the caption that describes it, drawn together from one random generator."""

from dataclasses import dataclass

import numpy as np

from inference.geometry.primitives import PrimitiveSet
from inference.training.furniture import FURNITURE
from inference.training.kit import Kit, ObjectKind, Paint, look
from inference.training.outdoors import OUTDOORS
from inference.training.words import COLOURS, MATERIALS, PROPORTIONS, Proportion

KINDS: tuple[ObjectKind, ...] = (*FURNITURE, *OUTDOORS)
_COLOUR_WORDS = tuple(COLOURS)
_PART_MATERIALS = tuple(name for name, material in MATERIALS.items() if material.colours)


@dataclass(frozen=True, kw_only=True)
class Example:
    """One training example."""

    kind: int
    """Index into `KINDS`."""
    caption: str
    primitives: PrimitiveSet


def article(words: str) -> str:
    """`a tall chair`, `an orange chair`."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def draw(rng: np.random.Generator, kind: int | None = None) -> Example:
    """One random object with its caption."""
    index = int(rng.integers(len(KINDS))) if kind is None else kind
    made = KINDS[index]
    size, proportion = _size(made, rng)
    words, whole = _whole(made, rng)
    paints, phrases = _parts(made, whole, rng)
    kit = Kit(rng, proportion, paints)
    made.build(kit)
    name = made.names[0] if rng.random() < 0.6 else str(rng.choice(made.names))
    caption = _sentence(rng, size, words, name) + _with(phrases)
    return Example(kind=index, caption=caption, primitives=PrimitiveSet(primitives=kit.fitted()))


def _size(made: ObjectKind, rng: np.random.Generator) -> tuple[str, Proportion]:
    if rng.random() < 0.4:
        word = str(rng.choice(made.proportions))
        return word, PROPORTIONS[word]
    return "", Proportion()


def _whole(made: ObjectKind, rng: np.random.Generator) -> tuple[str, Paint]:
    """The words for the whole object's look, and that look."""
    colour = str(rng.choice(_COLOUR_WORDS)) if rng.random() < 0.66 else ""
    material = str(rng.choice(made.materials)) if rng.random() < 0.33 else ""
    if colour and material:
        paint = look(colour, rng)
        finish = MATERIALS[material]
        return f"{colour} {material}", Paint(colour=paint.colour, roughness=finish.roughness, metallic=finish.metallic)
    if material and not MATERIALS[material].colours:  # a finish alone says nothing about the colour
        natural = look(str(rng.choice(made.looks)), rng)
        finish = MATERIALS[material]
        return material, Paint(colour=natural.colour, roughness=finish.roughness, metallic=finish.metallic)
    word = colour or material
    return word, look(word or str(rng.choice(made.looks)), rng)


def _parts(made: ObjectKind, whole: Paint, rng: np.random.Generator) -> tuple[dict[str, Paint], list[str]]:
    """A paint for every part, and phrases such as `a red roof` for those that the caption names."""
    paints: dict[str, Paint] = {}
    for name, part in made.parts.items():
        word = str(rng.choice(part.looks))
        paints[name] = look(word, rng) if word else whole
    phrases: list[str] = []
    count = int(rng.choice(3, p=(0.55, 0.32, 0.13)))
    for name in rng.permutation(list(made.parts))[:count]:
        words = str(rng.choice(_COLOUR_WORDS if rng.random() < 0.75 else _PART_MATERIALS))
        paints[str(name)] = look(words, rng)
        phrase = made.parts[str(name)].phrase
        first, _, rest = phrase.partition(" ")
        phrases.append(article(f"{words} {rest}") if first in ("a", "an") else f"{words} {phrase}")
    return paints, phrases


def _sentence(rng: np.random.Generator, size: str, words: str, name: str) -> str:
    plain = " ".join(word for word in (size, words, name) if word)
    style = rng.random()
    if style < 0.6:
        return article(plain)
    if style < 0.88:
        return plain
    if words and style < 0.94:
        return f"{article(' '.join(word for word in (size, name) if word))} in {words}"
    return f"a 3d model of {article(plain)}"


def _with(phrases: list[str]) -> str:
    return f" with {' and '.join(phrases)}" if phrases else ""
