"""Preview pictures without a GPU: Embree finds what each pixel sees, numpy shades it.

Shading: GGX (Walter et al. 2007) with Smith's height-correlated visibility and Schlick's Fresnel term, one
key light with shadows, and a studio sky whose reflection blurs with roughness. Lights are white, so an
object keeps its hue.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from scipy.ndimage import gaussian_filter

from inference.geometry.bake import Textures
from inference.geometry.mesh import Bytes, Floats, Ints, Mesh
from inference.geometry.unwrap import Unwrapped, vertex_normals

BACKGROUND = 0.93  # linear grey of the paper that the object stands on
_KEY = np.array([-0.45, 0.8, 0.6], np.float32) / np.linalg.norm([-0.45, 0.8, 0.6]).astype(np.float32)
_LINEAR = np.where(
    np.arange(256) / 255 <= 0.04045, np.arange(256) / 255 / 12.92, ((np.arange(256) / 255 + 0.055) / 1.055) ** 2.4
).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Camera:
    """Where the picture is taken from, in degrees; the object's front is at azimuth 0."""

    azimuth: float = 32.0
    elevation: float = 20.0
    field_of_view: float = 28.0
    margin: float = 1.1
    """How much room is left around the object: 1 is none."""


@dataclass(frozen=True, kw_only=True)
class _Surface:
    """What the visible points (N) are made of."""

    normal: Floats
    colour: Floats
    """Linear RGB."""
    roughness: Floats
    metallic: Floats


def render(
    mesh: Mesh | Unwrapped, textures: Textures | None, size: int = 512, camera: Camera | None = None, samples: int = 2
) -> Bytes:
    """A picture (size, size, 3) of the mesh, with its textures or with its looks per vertex.

    `samples` x `samples` rays make a pixel. The result is the same for the same mesh.
    """
    camera = camera or Camera()
    scene = EmbreeScene()
    TriangleMesh(scene, np.ascontiguousarray(mesh.vertices), np.ascontiguousarray(mesh.faces))
    origin, rays = _rays(mesh.vertices, camera, size * samples)
    found = _intersect(scene, np.broadcast_to(origin, rays.shape), rays)
    seen = np.flatnonzero(found["primID"] >= 0)
    picture = _ground(scene, mesh, origin, rays, size * samples)
    face, u, v = found["primID"][seen], found["u"][seen], found["v"][seen]
    weights = np.stack((1 - u - v, u, v), 1)
    corners = mesh.faces[face]
    at = _blend(mesh.vertices, corners, weights)
    surface = _looks(mesh, textures, corners, weights)
    geometric = _unit(np.asarray(found["Ng"], np.float32)[seen])
    geometric *= np.where(np.einsum("nd,nd->n", geometric, rays[seen]) > 0, -1.0, 1.0)[:, None].astype(np.float32)
    lit = ~_occluded(scene, at + geometric * 2e-3, seen, size * samples)
    picture[seen] = _shade(surface, -rays[seen], lit)
    averaged = picture.reshape(size, samples, size, samples, 3).mean((1, 3))
    return _to_bytes(averaged)


def _rays(vertices: Floats, camera: Camera, size: int) -> tuple[Floats, Floats]:
    """The eye (3,) and unit directions (size * size, 3), so that the object fills the picture."""
    a, e = np.radians(camera.azimuth), np.radians(camera.elevation)
    back = np.array([np.sin(a) * np.cos(e), np.sin(e), np.cos(a) * np.cos(e)])
    right = np.array([np.cos(a), 0.0, -np.sin(a)])
    up = np.cross(back, right)
    slope = np.tan(np.radians(camera.field_of_view) / 2) / camera.margin
    middle = (vertices.max(0) + vertices.min(0)) / 2
    rel = vertices - middle
    for _ in range(3):  # centre what is seen, then step back until every vertex is inside
        depth = rel @ back
        reach = np.maximum(np.abs(rel @ right), np.abs(rel @ up))
        distance = float((depth + reach / slope).max())
        for axis in (right, up):
            across = (rel @ axis) / (distance - depth)
            rel = rel - axis * ((across.max() + across.min()) / 2 * distance)
    centre = vertices[0] - rel[0]
    eye = (centre + back * distance).astype(np.float32)
    steps = ((np.arange(size) + 0.5) / size * 2 - 1) * np.tan(np.radians(camera.field_of_view) / 2)
    x, y = np.meshgrid(steps, -steps)
    directions = x[..., None] * right + y[..., None] * up - back
    return eye, _unit(directions.reshape(-1, 3).astype(np.float32))


def _intersect(scene: EmbreeScene, origins: Floats, rays: Floats) -> dict[str, npt.NDArray[np.float32]]:
    found: dict[str, npt.NDArray[np.float32]] = scene.run(
        np.ascontiguousarray(origins, np.float32), np.ascontiguousarray(rays), output=True
    )
    return found


# Where on the light the four samples of a pixel look: a fixed pattern leaves no noise.
_LIGHT = np.array([[0.04, 0.01, 0.0], [-0.01, 0.0, 0.04], [0.01, 0.0, -0.04], [-0.04, -0.01, 0.0]], np.float32)


def _occluded(
    scene: EmbreeScene, points: Floats, place: npt.NDArray[np.integer[Any]], width: int
) -> npt.NDArray[np.bool_]:
    """Whether the key light is hidden from points (N, 3), seen at these places of a picture; one ray each."""
    if not len(points):
        return np.zeros(0, bool)
    towards = _unit(_KEY + _LIGHT[place // width % 2 * 2 + place % 2])
    found = scene.run(np.ascontiguousarray(points, np.float32), towards, query="OCCLUDED")
    hidden: npt.NDArray[np.bool_] = np.asarray(found) >= 0
    return hidden


def _ground(scene: EmbreeScene, mesh: Mesh | Unwrapped, eye: Floats, rays: Floats, size: int) -> Floats:
    """The paper (size * size, 3) with the object's soft shadow on it."""
    level = float(mesh.vertices[:, 1].min()) - 1e-3
    reach = 1.5 * float(np.abs(mesh.vertices[:, [0, 2]]).max() + np.ptp(mesh.vertices[:, 1]))
    downwards = np.flatnonzero(rays[:, 1] < -1e-3)
    distance = (level - eye[1]) / rays[downwards, 1]
    points = eye + rays[downwards] * distance[:, None]
    close = np.hypot(points[:, 0], points[:, 2]) < reach
    points[:, 1] += 2e-3
    shadow = np.zeros(size * size, np.float32)
    shadow[downwards[close]] = _occluded(scene, points[close], downwards[close], size)
    soft = gaussian_filter(shadow.reshape(size, size), size / 110)
    paper = BACKGROUND * (1.0 - 0.38 * soft.reshape(-1, 1))
    return np.repeat(paper, 3, axis=1).astype(np.float32)


def _looks(mesh: Mesh | Unwrapped, textures: Textures | None, corners: Ints, weights: Floats) -> _Surface:
    if isinstance(mesh, Mesh) or textures is None:
        assert isinstance(mesh, Mesh)
        normals = vertex_normals(mesh.vertices, mesh.faces)
        grey = np.full((len(mesh.vertices), 3), 180, np.uint8)
        matte = np.tile(np.array([[150, 0]], np.uint8), (len(mesh.vertices), 1))
        colours, surface = mesh.colours, mesh.surface
        nearest = corners[np.arange(len(corners)), weights.argmax(1)]  # parts meet in a sharp line
        material = _share((surface if surface is not None else matte)[nearest])
        return _Surface(
            normal=_unit(_blend(normals, corners, weights)),
            colour=_LINEAR[(colours if colours is not None else grey)[nearest]],
            roughness=material[:, 0],
            metallic=material[:, 1],
        )
    size = len(textures.base_colour)
    uv = _blend(mesh.uvs, corners, weights)
    column, row = (np.clip((uv * size).astype(np.int64), 0, size - 1)[:, axis] for axis in (0, 1))
    orm = _share(textures.occlusion_roughness_metallic[row, column])
    local = _share(textures.normal[row, column]) * 2 - 1
    n = _unit(_blend(mesh.normals, corners, weights))
    t = _unit(_blend(np.ascontiguousarray(mesh.tangents[:, :3]), corners, weights))
    b = np.cross(n, t).astype(np.float32) * mesh.tangents[corners[:, 0], 3:]
    return _Surface(
        normal=_unit(local[:, :1] * t + local[:, 1:2] * b + local[:, 2:] * n),
        colour=_LINEAR[textures.base_colour[row, column]],
        roughness=orm[:, 1],
        metallic=orm[:, 2],
    )


def _shade(surface: _Surface, view: Floats, lit: npt.NDArray[np.bool_]) -> Floats:
    """Linear RGB (N, 3) of the points."""
    n = surface.normal
    nv = np.clip(np.einsum("nd,nd->n", n, view), 1e-3, 1.0)[:, None]
    metallic, rough = surface.metallic[:, None], np.maximum(surface.roughness, 0.08)[:, None]
    f0 = 0.04 * (1 - metallic) + surface.colour * metallic
    diffuse = surface.colour * (1 - metallic)
    half = _unit(view + _KEY)
    nl = np.clip(n @ _KEY, 0.0, 1.0)[:, None]
    nh = np.clip(np.einsum("nd,nd->n", n, half), 0.0, 1.0)[:, None]
    vh = np.clip(np.einsum("nd,nd->n", view, half), 0.0, 1.0)[:, None]
    a2 = rough**4
    density = a2 / (np.pi * (nh * nh * (a2 - 1) + 1) ** 2)
    visibility = 0.5 / (nl * np.sqrt(nv * nv * (1 - a2) + a2) + nv * np.sqrt(nl * nl * (1 - a2) + a2) + 1e-6)
    fresnel = f0 + (1 - f0) * (1 - vh) ** 5
    direct = (diffuse / np.pi * (1 - fresnel) + np.minimum(density * visibility, 4.0) * fresnel) * nl * lit[:, None]
    sky = 0.62 + 0.34 * n[:, 1:2]  # a bright ceiling, a darker floor
    mirrored = 2 * nv * n - view
    grazing = f0 + (np.maximum(1 - rough, f0) - f0) * (1 - nv) ** 5
    picture = direct * 2.3 + diffuse * sky * 0.6 + grazing * _studio(mirrored, rough)
    shaded: Floats = picture.astype(np.float32)
    return shaded


def _studio(direction: Floats, rough: Floats) -> Floats:
    """Light (N, 1) that comes from a direction (N, 3), blurred by roughness."""
    height = direction[:, 1:2]
    width = 0.12 + rough
    ceiling = 1.0 / (1.0 + np.exp(-np.clip((height - 0.15) / (0.3 * width), -30, 30)))
    window = np.exp(-((direction[:, :1] - 0.75) ** 2 + (height - 0.3) ** 2) / (0.35 * width))
    light: Floats = 0.42 + 0.55 * ceiling + 0.5 * window
    return light


def _to_bytes(linear: Floats) -> Bytes:
    """sRGB bytes; what is too bright is compressed by its brightest channel, which keeps the hue."""
    peak = linear.max(-1, keepdims=True)
    soft = np.where(peak > 0.8, 0.8 + 0.2 * (1 - np.exp(-(peak - 0.8) / 0.2)), peak)
    shown = linear * (soft / np.maximum(peak, 1e-6))
    encoded = np.where(shown <= 0.0031308, shown * 12.92, 1.055 * np.maximum(shown, 1e-8) ** (1 / 2.4) - 0.055)
    rounded: Bytes = np.clip(np.round(encoded * 255), 0, 255).astype(np.uint8)
    return rounded


def _share(values: Bytes) -> Floats:
    return values.astype(np.float32) / np.float32(255)


def _blend(values: Floats, corners: Ints, weights: Floats) -> Floats:
    blended: Floats = np.einsum("nc,ncd->nd", weights, values[corners]).astype(np.float32)
    return blended


def _unit(vectors: Floats) -> Floats:
    unit: Floats = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
    return unit
