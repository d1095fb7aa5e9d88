"""What a quality means to the built-in pipeline, and the parameters that may change it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from inference.stages.base import StageError


@dataclass(frozen=True, kw_only=True)
class QualitySettings:
    """Figures of a quality."""

    resolution: int
    """Grid cells along the object's longest side when the surface is taken."""
    target_faces: int
    """Triangles after retopology."""
    texture_size: int
    """Pixels along a texture's edge."""
    preview_size: int = 512
    preview_samples: int = 2


QUALITIES: Final = {
    "draft": QualitySettings(resolution=80, target_faces=3_000, texture_size=512, preview_samples=1),
    "standard": QualitySettings(resolution=128, target_faces=6_000, texture_size=1024),
    "high": QualitySettings(resolution=192, target_faces=12_000, texture_size=1024),
}

# Least and greatest value of what `JobRequested.parameters` may set.
_RANGES: Final = {"resolution": (32, 256), "target_faces": (200, 100_000), "texture_size": (128, 2048)}


def settings_for(quality: str, parameters: Mapping[str, str], texture_size: int | None = None) -> QualitySettings:
    """The figures of a quality, with `resolution`, `target_faces` and `texture_size` from the parameters.

    The argument texture_size is the job's own: it is the texture's edge, unless a parameter asks for a smaller one or
    the pipeline makes none so large (then its largest).
    Raises `StageError` of class `invalid` for an unknown quality or a value out of range.
    """
    if quality not in QUALITIES:
        raise StageError("invalid", f"quality {quality!r}; there are {', '.join(QUALITIES)}")
    changed: dict[str, int] = {}
    for name, (least, greatest) in _RANGES.items():
        text = parameters.get(name)
        if text is None:
            continue
        if not (text.isascii() and text.isdigit() and len(text) < 8 and least <= int(text) <= greatest):
            raise StageError("invalid", f"{name} is {text[:20]!r}; {least} to {greatest} are possible")
        changed[name] = int(text)
    if texture_size is not None:
        least, greatest = _RANGES["texture_size"]
        wanted = min(texture_size, changed.get("texture_size", texture_size))
        changed["texture_size"] = max(least, min(greatest, wanted))
    return replace(QUALITIES[quality], **changed)
