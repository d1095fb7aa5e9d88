"""Binary glTF 2.0 (GLB): one mesh, one material, three embedded PNG textures.

Specification: Khronos Group, "glTF 2.0 Specification".
"""

import io
import json
import struct
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from inference.geometry.bake import Textures
from inference.geometry.mesh import Bytes
from inference.geometry.unwrap import Unwrapped

_FLOAT, _UNSIGNED_INT = 5126, 5125
_VERTICES, _INDICES = 34962, 34963
_LINEAR, _LINEAR_MIPMAP_LINEAR, _CLAMP = 9729, 9987, 33071
_TYPES: Final = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4"}


class _Buffer:
    """Collects the binary chunk and what describes its pieces."""

    def __init__(self) -> None:
        self.content = bytearray()
        self.views: list[dict[str, int]] = []
        self.accessors: list[dict[str, Any]] = []

    def view(self, data: bytes, target: int | None = None) -> int:
        self.content += b"\0" * (-len(self.content) % 4)  # pieces start at whole words; lengths stay exact
        described = {"buffer": 0, "byteOffset": len(self.content), "byteLength": len(data)}
        if target is not None:
            described["target"] = target
        self.content += data
        self.views.append(described)
        return len(self.views) - 1

    def accessor(self, values: npt.NDArray[Any], component: int, target: int, *, bounds: bool = False) -> int:
        width = values.shape[1] if values.ndim == 2 else 1
        accessor: dict[str, Any] = {
            "bufferView": self.view(np.ascontiguousarray(values).tobytes(), target),
            "componentType": component,
            "count": len(values),
            "type": _TYPES[width],
        }
        if bounds:
            accessor["min"], accessor["max"] = values.min(0).tolist(), values.max(0).tolist()
        self.accessors.append(accessor)
        return len(self.accessors) - 1


def png(image: Bytes) -> bytes:
    """The image (H, W, 3 or 4) as PNG."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG", compress_level=6)
    return stream.getvalue()


def encode(mesh: Unwrapped, textures: Textures, name: str) -> bytes:
    """The bytes of a GLB file. `name` is shown by viewers as the object's name."""
    buffer = _Buffer()
    normals = _unit(mesh.normals)
    tangents = np.concatenate((_unit(mesh.tangents[:, :3]), mesh.tangents[:, 3:]), 1)
    attributes = {
        "POSITION": buffer.accessor(mesh.vertices.astype("<f4"), _FLOAT, _VERTICES, bounds=True),
        "NORMAL": buffer.accessor(normals.astype("<f4"), _FLOAT, _VERTICES),
        "TANGENT": buffer.accessor(tangents.astype("<f4"), _FLOAT, _VERTICES),
        "TEXCOORD_0": buffer.accessor(mesh.uvs.astype("<f4"), _FLOAT, _VERTICES),
    }
    indices = buffer.accessor(mesh.faces.reshape(-1).astype("<u4"), _UNSIGNED_INT, _INDICES)
    images = [
        {"bufferView": buffer.view(png(image)), "mimeType": "image/png", "name": title}
        for title, image in (
            ("base colour", textures.base_colour),
            ("occlusion, roughness, metallic", textures.occlusion_roughness_metallic),
            ("normal", textures.normal),
        )
    ]
    document = {
        "asset": {"version": "2.0", "generator": "Meshyard"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": name}],
        "meshes": [{"name": name, "primitives": [{"attributes": attributes, "indices": indices, "material": 0}]}],
        "materials": [_material()],
        "textures": [{"sampler": 0, "source": index} for index in range(len(images))],
        "samplers": [{"magFilter": _LINEAR, "minFilter": _LINEAR_MIPMAP_LINEAR, "wrapS": _CLAMP, "wrapT": _CLAMP}],
        "images": images,
        "accessors": buffer.accessors,
        "bufferViews": buffer.views,
        "buffers": [{"byteLength": len(buffer.content)}],
    }
    return _container(json.dumps(document, separators=(",", ":")).encode(), bytes(buffer.content))


def write(mesh: Unwrapped, textures: Textures, name: str, path: Path) -> None:
    """Write a GLB file."""
    path.write_bytes(encode(mesh, textures, name))


def _material() -> dict[str, Any]:
    return {
        "name": "baked",
        "pbrMetallicRoughness": {
            "baseColorTexture": {"index": 0},
            "metallicRoughnessTexture": {"index": 1},
            "metallicFactor": 1.0,
            "roughnessFactor": 1.0,
        },
        "normalTexture": {"index": 2},
    }


def _unit(vectors: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    exact = vectors.astype(np.float64)
    unit: npt.NDArray[np.float32] = (exact / np.linalg.norm(exact, axis=1, keepdims=True)).astype(np.float32)
    return unit


def _container(document: bytes, binary: bytes) -> bytes:
    document += b" " * (-len(document) % 4)
    binary += b"\0" * (-len(binary) % 4)
    total = 12 + 8 + len(document) + 8 + len(binary)
    return b"".join(
        (
            struct.pack("<4sII", b"glTF", 2, total),
            struct.pack("<I4s", len(document), b"JSON"),
            document,
            struct.pack("<I4s", len(binary), b"BIN\0"),
            binary,
        )
    )
