"""The primitive set as a file that people may edit."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference.geometry.primitives import InvalidPrimitives, Primitive, PrimitiveSet, read_json, write_json
from inference.training.captions import KINDS, draw

BOX = Primitive(kind="box", centre=(0.0, 0.0, 0.0), size=(0.5, 0.4, 0.3, 0.0))


@pytest.mark.parametrize("kind", range(len(KINDS)))
def test_a_set_survives_its_file(kind: int, tmp_path: Path) -> None:
    primitives = draw(np.random.default_rng(kind), kind).primitives
    write_json(primitives, tmp_path / "field.json")
    for before, after in zip(primitives.primitives, read_json(tmp_path / "field.json").primitives, strict=True):
        assert (before.kind, before.subtract, before.mirror_x, before.mirror_z) == (
            after.kind,
            after.subtract,
            after.mirror_x,
            after.mirror_z,
        )
        for name in ("centre", "size", "rotation", "colour", "roughness", "metallic"):
            np.testing.assert_allclose(getattr(before, name), getattr(after, name), atol=1e-6)


def test_numbers_have_names(tmp_path: Path) -> None:
    cone = Primitive(kind="cone", centre=(0.0, 1.0, 0.0), size=(0.5, 0.4, 0.3, 0.1), mirror_z=True)
    write_json(PrimitiveSet(primitives=(cone,)), tmp_path / "field.json")
    entry = json.loads((tmp_path / "field.json").read_text())["primitives"][0]
    assert entry["size"] == {"half_height": 0.5, "radius_bottom": 0.4, "radius_top": 0.3, "rounding": 0.1}
    assert entry["mirror"] == ["z"]
    assert entry["colour_srgb"] == [0.8, 0.8, 0.8]


def _document(**changed: Any) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "kind": "ellipsoid",
        "operation": "union",
        "centre": [0, 0, 0],
        "size": {"radius_x": 1, "radius_y": 1, "radius_z": 1},
        "rotation": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        "mirror": [],
        "colour_srgb": [1, 0, 0],
        "roughness": 0.5,
        "metallic": 0,
    }
    return {"format": "primitive-set/1", "primitives": [entry | changed]}


@pytest.mark.parametrize(
    "document",
    [
        "not json",
        "{}",
        json.dumps({"format": "primitive-set/2", "primitives": []}),
        json.dumps({"format": "primitive-set/1", "primitives": []}),
        json.dumps(_document(kind="sphere")),
        json.dumps(_document(size={"radius_x": 1})),
        json.dumps(_document(size={"radius_x": -1, "radius_y": 1, "radius_z": 1})),
        json.dumps(_document(centre=[0, 0, 1e9])),
        json.dumps(_document(centre=[0, 0])),
        json.dumps(_document(unknown=1)),
        json.dumps(_document()).replace("0.5", "1e999"),
    ],
)
def test_a_bad_file_is_refused(document: str, tmp_path: Path) -> None:
    (tmp_path / "field.json").write_text(document)
    with pytest.raises(InvalidPrimitives):
        read_json(tmp_path / "field.json")


def test_there_are_one_to_sixteen_primitives() -> None:
    for count in (0, 17):
        with pytest.raises(InvalidPrimitives, match="1 to 16"):
            PrimitiveSet(primitives=(BOX,) * count)


def test_bounds_hold_mirrors_and_leave_out_what_is_taken_away() -> None:
    side = dataclasses.replace(BOX, centre=(1.0, 0.0, 0.0), mirror_x=True)
    hole = dataclasses.replace(BOX, centre=(0.0, 3.0, 0.0), subtract=True)
    low, high = PrimitiveSet(primitives=(side, hole)).bounds()
    np.testing.assert_allclose(low, (-1.5, -0.4, -0.3))
    np.testing.assert_allclose(high, (1.5, 0.4, 0.3))
    with pytest.raises(InvalidPrimitives, match="empty"):
        PrimitiveSet(primitives=(hole,)).bounds()
