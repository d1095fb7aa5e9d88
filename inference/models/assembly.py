"""The built-in text-to-3D model, whole: a rectified flow over a set of primitives.

The object is written as up to 12 primitives of 27 numbers. From Gaussian noise (12 x 27) a transformer,
conditioned on the prompt, flows to the record of an object in 40 Euler steps; `decode` makes a
`PrimitiveSet` of it. A small learned model of 29 kinds of object, not a general one: `Sample.confidence`
says how near the prompt is to what was trained.

Sources: Liu et al. 2022, "Flow Straight and Fast" (rectified flow); Esser et al. 2024 (logit-normal times);
Peebles & Xie 2022, "DiT" (adaLN-zero); Ho & Salimans 2022 (classifier-free guidance); the idea of an object
as a generated set of primitives: PrimitiveAnything, 2025.
"""

import hashlib
import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own custom
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from inference.geometry.primitives import KINDS, Primitive, PrimitiveSet
from inference.geometry.repair import repaired
from inference.models.errors import ModelUnavailableError, WeightsCorruptError
from inference.models.minilm import MiniLM, TextStates

# Columns of a record. Flags and the one-hot kind are -1 or 1; sizes are stored by their square root, so that
# thin parts keep their precision; colours, roughness and metallic are scaled to -1..1.
PRESENT, SUBTRACT, KIND, CENTRE, SIZE = 0, 1, slice(2, 7), slice(7, 10), slice(10, 14)
ROTATION, COLOUR, ROUGHNESS, METALLIC = slice(14, 20), slice(20, 23), 23, 24
MIRROR_X, MIRROR_Z, FIELDS = 25, 26, 27

Record = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class AssemblyConfig:
    """The network's figures."""

    slots: int = 12
    fields: int = FIELDS
    width: int = 192
    heads: int = 6
    blocks: int = 6
    cross_every: int = 2
    """Every second block attends to the prompt's tokens."""
    condition: int = 128
    text: int = 384
    steps: int = 40
    guidance: float = 2.0
    guidance_until: float = 0.4
    """Time up to which the prompt is amplified: that decides what the object is. Later it would only inflate
    the parts (Kynkäänniemi et al. 2024, "Applying Guidance in a Limited Interval")."""


def encode(primitives: PrimitiveSet, slots: int = AssemblyConfig.slots) -> Record:
    """The record (slots, 27) of a set; rows that are not used are 0 but for `PRESENT` = -1."""
    record = np.zeros((slots, FIELDS), np.float32)
    record[:, PRESENT] = -1.0
    for row, item in zip(record, primitives.primitives, strict=False):
        row[PRESENT] = 1.0
        row[SUBTRACT] = 1.0 if item.subtract else -1.0
        row[KIND] = -1.0
        row[KIND.start + KINDS.index(item.kind)] = 1.0
        row[CENTRE] = item.centre
        row[SIZE] = np.sqrt(item.size) * 2.0 - 1.0
        row[ROTATION] = np.array(item.rotation)[:, :2].T.reshape(6)  # first two columns
        row[COLOUR] = np.array(item.colour) * 2.0 - 1.0
        row[ROUGHNESS] = item.roughness * 2.0 - 1.0
        row[METALLIC] = item.metallic * 2.0 - 1.0
        row[MIRROR_X] = 1.0 if item.mirror_x else -1.0
        row[MIRROR_Z] = 1.0 if item.mirror_z else -1.0
    return record


def decode(record: Record) -> PrimitiveSet:
    """The set that a record (slots, 27) stands for. Raises `InvalidPrimitives` when nothing is present."""
    found: list[Primitive] = []
    for row in np.asarray(record, np.float64):
        if row[PRESENT] <= 0.0:
            continue
        kind = KINDS[int(np.argmax(row[KIND]))]
        size = (np.clip((row[SIZE] + 1.0) / 2.0, 0.0, 1.2)) ** 2
        size = np.maximum(size, _LEAST_SIZE[kind])
        if kind in ("box", "prism"):
            size[3] = min(size[3], 0.8 * float(size[:3].min()))
        elif kind == "cone":
            size[3] = min(size[3], 0.8 * float(size[0]), 0.6 * float(max(size[1:3])))
        colour = np.clip((row[COLOUR] + 1.0) / 2.0, 0.0, 1.0)
        found.append(
            Primitive(
                kind=kind,
                subtract=bool(row[SUBTRACT] > 0.0 and found),
                centre=_three(np.clip(row[CENTRE], -1.5, 1.5)),
                size=(float(size[0]), float(size[1]), float(size[2]), float(size[3])),
                rotation=_orthonormal(row[ROTATION]),
                colour=_three(colour),
                roughness=float(np.clip((row[ROUGHNESS] + 1.0) / 2.0, 0.04, 1.0)),
                metallic=float(np.clip((row[METALLIC] + 1.0) / 2.0, 0.0, 1.0)),
                mirror_x=bool(row[MIRROR_X] > 0.0),
                mirror_z=bool(row[MIRROR_Z] > 0.0),
            )
        )
    return PrimitiveSet(primitives=tuple(found))


# Nothing is thinner than this (half extents), so that the surface grid cannot miss it.
_LEAST_SIZE: Final = {
    "box": np.array([0.015, 0.015, 0.015, 0.0]),
    "cone": np.array([0.015, 0.008, 0.008, 0.0]),
    "ellipsoid": np.array([0.015, 0.015, 0.015, 0.0]),
    "torus": np.array([0.02, 0.015, 0.0, 0.0]),
    "prism": np.array([0.015, 0.015, 0.015, 0.0]),
}


def _three(values: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    return (float(values[0]), float(values[1]), float(values[2]))


def _orthonormal(numbers: npt.NDArray[np.float64]) -> Any:
    """Gram-Schmidt on two columns (Zhou et al. 2019); rows of the matrix."""
    first, second = numbers[:3], numbers[3:]
    first = first / max(float(np.linalg.norm(first)), 1e-6)
    second = second - first * float(first @ second)
    second = second / max(float(np.linalg.norm(second)), 1e-6)
    matrix = np.stack([first, second, np.cross(first, second)], axis=1)
    if not np.allclose(matrix @ matrix.T, np.eye(3), atol=1e-3):  # the two columns were parallel
        matrix = np.eye(3)
    # Almost upright is upright: the noise of the flow shall not tilt a table.
    aligned = np.round(matrix)
    if np.abs(matrix - aligned).max() < 0.06 and abs(np.linalg.det(aligned) - 1.0) < 1e-6:
        matrix = aligned
    return tuple(_three(row) for row in matrix)


class Block(nn.Module):
    """Self-attention over the slots, attention to the prompt's tokens, MLP; adaLN-zero around them."""

    def __init__(self, config: AssemblyConfig, *, cross: bool) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.modulation = nn.Linear(config.condition, 6 * width)
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        self.cross = cross
        if cross:
            self.cross_query = nn.Linear(width, width)
            self.cross_key_value = nn.Linear(width, 2 * width)
            self.cross_out = nn.Linear(width, width)
            nn.init.zeros_(self.cross_out.weight)
            nn.init.zeros_(self.cross_out.bias)

    def forward(self, x: Tensor, condition: Tensor, text: Tensor, seen: Tensor) -> Tensor:
        """x (B, S, W), condition (B, C), text (B, T, W), seen (B, 1, 1, T) -> (B, S, W)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = (
            self.modulation(F.silu(condition)).unsqueeze(1).chunk(6, -1)  # each (B, 1, W)
        )
        h = self.norm(x) * (1 + scale1) + shift1
        q, k, v = (self._split(part) for part in self.qkv(h).chunk(3, -1))
        x = x + gate1 * self.out(self._join(F.scaled_dot_product_attention(q, k, v)))
        if self.cross:
            q = self._split(self.cross_query(self.norm(x)))
            k, v = (self._split(part) for part in self.cross_key_value(text).chunk(2, -1))
            x = x + self.cross_out(self._join(F.scaled_dot_product_attention(q, k, v, attn_mask=seen)))
        h = self.norm(x) * (1 + scale2) + shift2
        out: Tensor = x + gate2 * self.down(F.gelu(self.up(h)))
        return out

    def _split(self, x: Tensor) -> Tensor:  # (B, N, W) -> (B, nh, N, hs)
        batch, length, width = x.shape
        return x.view(batch, length, self.heads, width // self.heads).transpose(1, 2)

    def _join(self, x: Tensor) -> Tensor:  # (B, nh, N, hs) -> (B, N, W)
        return x.transpose(1, 2).flatten(2)


class AssemblyNet(nn.Module):
    """Predicts the velocity of the flow."""

    def __init__(self, config: AssemblyConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.enter = nn.Linear(config.fields, width)
        self.place = nn.Parameter(torch.randn(config.slots, width) * 0.02)
        self.time = nn.Sequential(nn.Linear(128, 256), nn.SiLU(), nn.Linear(256, config.condition))
        self.pooled = nn.Linear(config.text, config.condition)
        self.text = nn.Linear(config.text, width)
        self.text_norm = nn.LayerNorm(width)
        self.no_text = nn.Parameter(torch.randn(1, 1, width) * 0.02)  # always there: what null prompts attend to
        self.blocks = nn.ModuleList(
            Block(config, cross=index % config.cross_every == 0) for index in range(config.blocks)
        )
        self.final_modulation = nn.Linear(config.condition, 2 * width)
        self.final_norm = nn.LayerNorm(width, elementwise_affine=False)
        self.leave = nn.Linear(width, config.fields)
        for layer in (self.final_modulation, self.leave):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, t: Tensor, pooled: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """x (B, S, 27), t (B,) in 0..1, pooled (B, 384), tokens (B, T, 384), mask (B, T) -> (B, S, 27).

        A null prompt has pooled = 0 and a mask that is all False.
        """
        angles = t[:, None] * 1000.0 * torch.exp(torch.arange(64) * (-math.log(10000.0) / 64))  # (B, 64)
        # A unit vector of 384 numbers has entries near .05: scaled to about 1.
        condition = self.time(torch.cat([angles.sin(), angles.cos()], -1)) + self.pooled(pooled * 384**0.5)
        text = self.text_norm(self.text(tokens))
        text = torch.cat([self.no_text.expand(len(x), -1, -1), text], 1)  # (B, 1 + T, W)
        seen = F.pad(mask, (1, 0), value=True)[:, None, None, :]
        h = self.enter(x) + self.place
        for block in self.blocks:
            h = block(h, condition, text, seen)
        shift, scale = self.final_modulation(F.silu(condition)).unsqueeze(1).chunk(2, -1)
        out: Tensor = self.leave(self.final_norm(h) * (1 + scale) + shift)
        return out


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What the model made of one prompt."""

    primitives: PrimitiveSet
    confidence: float
    """Greatest cosine between the prompt and the captions of the trained kinds, about 0..1."""
    nearest_kind: str
    """Name of the trained kind that the prompt is nearest to."""

    @property
    def low_confidence(self) -> bool:
        """True when the prompt is likely outside of what was trained: the object is then a guess."""
        return self.confidence < LOW_CONFIDENCE


LOW_CONFIDENCE: Final = 0.6  # 4 % of new captions of the trained kinds lie below


class AssemblyModel:
    """Text encoder, flow and decoder together. Load once, then `sample` any number of times."""

    def __init__(self, net: AssemblyNet, encoder: MiniLM, anchors: Tensor, kinds: tuple[str, ...]) -> None:
        self.net = net.eval()
        self.encoder = encoder
        self.anchors = anchors  # (number of anchor captions, 384)
        self.kinds = kinds  # the kind of each anchor

    @classmethod
    def load(cls, weights: Path, sha256: str, config: AssemblyConfig | None = None) -> "AssemblyModel":
        """Read the weights. Raises `ModelUnavailableError` and `WeightsCorruptError`."""
        try:
            content = weights.read_bytes()
        except FileNotFoundError as error:
            raise ModelUnavailableError("assembly", f"{weights} is missing") from error
        found = hashlib.sha256(content).hexdigest()
        if found != sha256:
            raise WeightsCorruptError(str(weights), sha256, found)
        tensors = load_tensors(content)
        anchors = tensors.pop("anchors").float()
        kinds = tuple(bytes(tensors.pop("anchor_kinds").tolist()).decode().split("\n"))
        net = AssemblyNet(config or AssemblyConfig())
        net.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
        return cls(net, MiniLM(), anchors, kinds)

    @torch.no_grad()
    def sample(self, prompts: list[str], seeds: list[int]) -> list[Sample]:
        """One object for each prompt and seed. The same seed gives the same object, whatever the batch.

        (To the last bit on one machine with one thread count; across machines up to rounding.)
        """
        states = self.encoder.encode(prompts)
        config = self.net.config
        noise = [
            torch.randn(config.slots, config.fields, generator=torch.Generator().manual_seed(seed % 2**63))
            for seed in seeds
        ]
        records = self._flow(torch.stack(noise), states).numpy()
        cosine, nearest = (states.pooled @ self.anchors.T).max(1)
        return [
            Sample(primitives=repaired(decode(record)), confidence=float(value), nearest_kind=self.kinds[int(index)])
            for record, value, index in zip(records, cosine, nearest, strict=True)
        ]

    def _flow(self, x: Tensor, states: TextStates) -> Tensor:
        """Euler steps from noise at t = 0 to data at t = 1, shorter ones first."""
        config = self.net.config
        even = torch.linspace(0.0, 1.0, config.steps + 1)
        times = (even / (2.0 - even)).tolist()
        no_pooled, no_mask = torch.zeros_like(states.pooled), torch.zeros_like(states.mask)
        for start, end in pairwise(times):
            t = torch.full((len(x),), start)
            velocity: Tensor = self.net(x, t, states.pooled, states.tokens, states.mask)
            if start < config.guidance_until:
                without = self.net(x, t, no_pooled, states.tokens, no_mask)
                velocity = without + config.guidance * (velocity - without)
            x = x + (end - start) * velocity
        return x
