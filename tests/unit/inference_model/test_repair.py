"""Corrections of sampled sets."""

import dataclasses

import numpy as np

from inference.geometry.primitives import Primitive, PrimitiveSet
from inference.geometry.repair import repaired
from inference.training.captions import KINDS, draw
from inference.training.kit import turn

WALL = Primitive(kind="box", centre=(0.0, 0.0, 0.0), size=(0.8, 0.5, 0.6, 0.0))
DOOR = Primitive(kind="box", centre=(0.1, -0.1, 0.5), size=(0.1, 0.3, 0.03, 0.0))


def test_a_hidden_door_comes_out_of_its_wall() -> None:
    door = repaired(PrimitiveSet(primitives=(WALL, DOOR))).primitives[1]
    assert door.centre[:2] == DOOR.centre[:2]
    assert 0.005 < door.centre[2] + door.size[2] - 0.6 < 0.03


def test_a_turned_part_moves_along_its_own_axes() -> None:
    turned = dataclasses.replace(DOOR, centre=(0.7, 0.0, 0.1), rotation=turn("y", 90))
    part = repaired(PrimitiveSet(primitives=(WALL, turned))).primitives[1]
    np.testing.assert_allclose(part.centre[1:], (0.0, 0.1), atol=1e-6)
    assert 0.005 < part.centre[0] + 0.03 - 0.8 < 0.03


def test_what_can_be_seen_or_lies_deep_stays() -> None:
    seen = dataclasses.replace(DOOR, centre=(0.1, -0.1, 0.6))
    deep = dataclasses.replace(DOOR, centre=(0.1, 0.0, 0.2), size=(0.05, 0.05, 0.05, 0.0))
    hole = dataclasses.replace(WALL, size=(0.2, 0.9, 0.2, 0.0), subtract=True)
    for primitives in ((WALL, seen), (WALL, deep), (WALL, DOOR, hole)):
        assert repaired(PrimitiveSet(primitives=primitives)).primitives == primitives


def test_what_is_nearly_in_the_middle_goes_there() -> None:
    off = dataclasses.replace(WALL, centre=(0.02, 0.02, -0.01))
    assert repaired(PrimitiveSet(primitives=(off,))).primitives[0].centre == (0.0, 0.02, 0.0)


def test_objects_as_they_should_be_hardly_change() -> None:
    for kind in range(len(KINDS)):
        primitives = draw(np.random.default_rng(kind), kind).primitives
        for before, after in zip(primitives.primitives, repaired(primitives).primitives, strict=True):
            assert np.abs(np.subtract(before.centre, after.centre)).max() < 0.13
            assert dataclasses.replace(after, centre=before.centre) == before


def test_a_loose_part_is_joined_and_a_far_one_left() -> None:
    loose = dataclasses.replace(DOOR, centre=(0.0, 0.85, 0.0))
    joined = repaired(PrimitiveSet(primitives=(WALL, loose))).primitives[1]
    assert -0.02 < joined.centre[1] - 0.3 - 0.5 < 0.0
    far = dataclasses.replace(DOOR, centre=(0.0, 1.2, 0.0))
    assert repaired(PrimitiveSet(primitives=(WALL, far))).primitives[1] == far
