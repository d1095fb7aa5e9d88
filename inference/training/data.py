"""The training set: objects drawn by code, as records, with their captions encoded once."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from inference.models.assembly import encode
from inference.models.minilm import MiniLM
from inference.training.captions import KINDS, article, draw
from inference.training.words import COLOURS


@dataclass(frozen=True, kw_only=True)
class TextStore:
    """Encoded captions of different lengths, end to end."""

    pooled: Tensor
    """(C, 384) float32."""
    tokens: Tensor
    """(sum of lengths, 384) float16."""
    starts: Tensor
    """(C + 1,): where each caption's tokens start."""

    def batch(self, captions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """pooled (B, 384), tokens (B, T, 384), mask (B, T) of the captions with these numbers."""
        starts = self.starts[captions]
        lengths = self.starts[captions + 1] - starts
        reach = torch.arange(int(lengths.max()))
        mask = reach[None] < lengths[:, None]
        places = torch.where(mask, starts[:, None] + reach[None], 0)
        return self.pooled[captions], self.tokens[places].float(), mask


@dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """Objects and their captions."""

    records: Tensor
    """(N, slots, 27)."""
    captions: Tensor
    """(N,): number of each object's caption in `texts`."""
    texts: TextStore


def build(count: int, seed: int, encoder: MiniLM) -> TrainingSet:
    """`count` objects drawn with `seed`."""
    rng = np.random.default_rng(seed)
    numbers: dict[str, int] = {}
    records, captions = [], []
    for index in range(count):
        example = draw(rng, index % len(KINDS))
        records.append(encode(example.primitives))
        captions.append(numbers.setdefault(example.caption, len(numbers)))
    return TrainingSet(
        records=torch.from_numpy(np.stack(records)),
        captions=torch.tensor(captions),
        texts=encode_captions(list(numbers), encoder),
    )


def encode_captions(captions: list[str], encoder: MiniLM, batch: int = 256) -> TextStore:
    """Encode captions in batches of similar length, and put them back into their order."""
    order = sorted(range(len(captions)), key=lambda index: len(captions[index]))
    pooled = torch.empty(len(captions), 384)
    tokens: list[Tensor] = [torch.empty(0)] * len(captions)
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        states = encoder.encode([captions[index] for index in chosen])
        for row, index in enumerate(chosen):
            pooled[index] = states.pooled[row]
            tokens[index] = states.tokens[row, states.mask[row]].half()
    lengths = torch.tensor([0, *(len(item) for item in tokens)])
    return TextStore(pooled=pooled, tokens=torch.cat(tokens), starts=lengths.cumsum(0))


def anchors(encoder: MiniLM) -> tuple[Tensor, tuple[str, ...]]:
    """Captions that stand for what is trained: sentence vectors (A, 384) and the kind of each."""
    captions: list[str] = []
    kinds: list[str] = []
    for kind in KINDS:
        for name in kind.names:
            plain = [article(name), article(f"tall {name}"), article(f"wooden {name}"), article(f"metal {name}")]
            captions += plain + [article(f"{colour} {name}") for colour in list(COLOURS)[::6]]
        kinds += [kind.names[0]] * (len(captions) - len(kinds))
    return encode_captions(captions, encoder).pooled, tuple(kinds)
