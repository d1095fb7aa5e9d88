"""Distances against closed forms that are written here in another way."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from inference.geometry import field
from inference.geometry.primitives import Primitive, PrimitiveSet
from inference.training.captions import KINDS, draw
from inference.training.kit import turn


def points(count: int = 4000, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.uniform(-1.2, 1.2, (count, 3)).astype(np.float32))


def box(**more: object) -> Primitive:
    values: dict[str, object] = {"kind": "box", "centre": (0.0, 0.0, 0.0), "size": (0.5, 0.4, 0.3, 0.0)}
    return Primitive(**(values | more))  # type: ignore[arg-type]


def nearest_on(surface: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    return torch.cdist(at, surface).amin(1)


def test_a_sphere_is_exact() -> None:
    at = points()
    ball = Primitive(kind="ellipsoid", centre=(0.2, -0.1, 0.0), size=(0.5, 0.5, 0.5, 0.0))
    expected = (at - torch.tensor([0.2, -0.1, 0.0])).norm(dim=1) - 0.5
    outside = expected > 0
    found = field.distance_to(ball, at)
    torch.testing.assert_close(found[outside], expected[outside], atol=1e-5, rtol=1e-4)
    assert bool((found[~outside] <= 0).all())


def test_an_ellipsoid_is_first_order_exact_at_its_surface() -> None:
    rng = np.random.default_rng(1)
    directions = rng.normal(size=(2000, 3))
    on = directions / np.linalg.norm(directions, axis=1, keepdims=True) * (0.7, 0.2, 0.4)
    outward = on / np.square((0.7, 0.2, 0.4))
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    flat = Primitive(kind="ellipsoid", centre=(0.0, 0.0, 0.0), size=(0.7, 0.2, 0.4, 0.0))
    for offset in (-2e-3, 0.0, 2e-3):
        found = field.distance_to(flat, torch.from_numpy((on + offset * outward).astype(np.float32)))
        assert float((found - offset).abs().max()) < 2e-4


def test_a_box_is_the_distance_to_its_clamped_point() -> None:
    at = points()
    half = torch.tensor([0.5, 0.4, 0.3])
    outside = (at - at.clamp(-half, half)).norm(dim=1)
    inside = (half - at.abs()).amin(1)
    expected = torch.where(outside > 0, outside, -inside)
    torch.testing.assert_close(field.distance_to(box(), at), expected, atol=1e-5, rtol=1e-4)


def test_rounding_stays_inside_of_the_box() -> None:
    rounded = box(size=(0.5, 0.4, 0.3, 0.1))
    sharp, round_ = field.distance_to(box(), points()), field.distance_to(rounded, points())
    assert bool((round_ >= sharp - 1e-5).all())
    corner = torch.tensor([[0.5, 0.4, 0.3]])
    assert float(field.distance_to(rounded, corner)[0]) == pytest.approx(0.1 * (3**0.5 - 1), abs=1e-5)


def test_a_torus_is_exact() -> None:
    at = points()
    ring = Primitive(kind="torus", centre=(0.0, 0.0, 0.0), size=(0.6, 0.15, 0.0, 0.0))
    angle = torch.atan2(at[:, 2], at[:, 0])
    core = torch.stack((0.6 * angle.cos(), torch.zeros_like(angle), 0.6 * angle.sin()), 1)
    torch.testing.assert_close(field.distance_to(ring, at), (at - core).norm(dim=1) - 0.15, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("bottom", "top"), [(0.5, 0.5), (0.6, 0.2), (0.1, 0.5), (0.4, 0.0)])
def test_a_capped_cone_matches_a_sampled_outline(bottom: float, top: float) -> None:
    at = points(1500)
    flat = torch.stack((torch.hypot(at[:, 0], at[:, 2]), at[:, 1]), 1)
    steps = torch.linspace(0, 1, 4000)[:, None]
    corners = torch.tensor([[0.0, -0.5], [bottom, -0.5], [top, 0.5], [0.0, 0.5]])
    outline = torch.cat([a + steps * (b - a) for a, b in pairwise(corners)])
    inside = (flat[:, 1].abs() < 0.5) & (flat[:, 0] < bottom + (top - bottom) * (flat[:, 1] + 0.5))
    expected = nearest_on(outline, flat) * torch.where(inside, -1.0, 1.0)
    found = field.distance_to(Primitive(kind="cone", centre=(0, 0, 0), size=(0.5, bottom, top, 0.0)), at)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


def test_a_prism_matches_a_sampled_triangle_and_its_ends() -> None:
    at = points(1500)
    steps = torch.linspace(0, 1, 4000)[:, None]
    corners = torch.tensor([[-0.6, -0.4], [0.6, -0.4], [0.0, 0.4], [-0.6, -0.4]])
    outline = torch.cat([a + steps * (b - a) for a, b in pairwise(corners)])
    inside = (at[:, 1] > -0.4) & (at[:, 0].abs() < 0.6 * (0.4 - at[:, 1]) / 0.8)
    flat = nearest_on(outline, at[:, :2]) * torch.where(inside, -1.0, 1.0)
    along = at[:, 2].abs() - 0.3
    outside = torch.hypot(flat.clamp_min(0), along.clamp_min(0))
    expected = torch.where((flat > 0) | (along > 0), outside, torch.maximum(flat, along))
    found = field.distance_to(Primitive(kind="prism", centre=(0, 0, 0), size=(0.6, 0.4, 0.3, 0.0)), at)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


def test_rotation_and_centre_move_the_primitive_as_a_matrix_does() -> None:
    at = points()
    rotation = torch.tensor(turn("z", 30))
    moved = at @ rotation.T + torch.tensor([0.1, 0.2, -0.3])
    placed = box(centre=(0.1, 0.2, -0.3), rotation=turn("z", 30))
    torch.testing.assert_close(field.distance_to(placed, moved), field.distance_to(box(), at), atol=1e-5, rtol=1e-4)


def test_a_mirrored_primitive_is_two() -> None:
    at = points()
    one = box(centre=(0.6, 0.0, 0.4), size=(0.2, 0.2, 0.2, 0.0), mirror_x=True, mirror_z=True)
    copies = [box(centre=(x, 0.0, z), size=(0.2, 0.2, 0.2, 0.0)) for x in (-0.6, 0.6) for z in (-0.4, 0.4)]
    expected = torch.stack([field.distance_to(copy, at) for copy in copies]).amin(0)
    torch.testing.assert_close(field.distance_to(one, at), expected, atol=1e-5, rtol=1e-4)


def test_subtraction_takes_away_only_what_came_before() -> None:
    hole = box(size=(0.2, 1.0, 0.2, 0.0), subtract=True)
    plug = box(size=(0.1, 0.1, 0.1, 0.0))
    middle = torch.zeros(1, 3)
    assert float(field.distance(PrimitiveSet(primitives=(box(), hole)), middle)) > 0
    assert float(field.distance(PrimitiveSet(primitives=(box(), hole, plug)), middle)) < 0
    wall = torch.tensor([[0.2, 0.0, 0.0]])
    assert int(field.evaluate(PrimitiveSet(primitives=(box(), hole)), wall).owner[0]) == 1


def test_the_walls_of_a_hole_look_into_the_hole() -> None:
    bored = PrimitiveSet(primitives=(box(), box(size=(0.2, 1.0, 0.2, 0.0), subtract=True)))
    wall = torch.tensor([[0.2, 0.0, 0.0], [0.5, 0.0, 0.0]])
    normals = field.normals(bored, wall, field.evaluate(bored, wall).owner)
    torch.testing.assert_close(normals, torch.tensor([[-1.0, 0, 0], [1.0, 0, 0]]), atol=1e-3, rtol=0)


@pytest.mark.parametrize("kind", range(0, len(KINDS), 4))
def test_leaving_far_primitives_out_changes_nothing_near_the_surface(kind: int) -> None:
    primitives = draw(np.random.default_rng(kind), kind).primitives
    at = points(20_000, kind)
    full = field.evaluate(primitives, at)
    at, expected = at[full.distance.abs() < 0.05], full.distance[full.distance.abs() < 0.05]
    group = torch.arange(len(at))
    close = field.near(primitives, at + 0.01, torch.full((len(at),), 0.06), group)
    assert float(close.active.float().mean()) < 0.9
    torch.testing.assert_close(field.evaluate(primitives, at, close).distance, expected)
