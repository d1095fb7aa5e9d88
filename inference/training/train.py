"""Train the built-in model: `python -m inference.training.train --steps N --seed 0 --out FILE`.

The number of steps is fixed, not the time, so a run can be repeated: the same seed, thread count and
machine give the same weights. A checkpoint is written every 500 steps beside the output; the same
command goes on from it.
"""

import argparse
import hashlib
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
import torch
from safetensors.torch import save_file
from torch import Tensor

from inference.models.assembly import (
    CENTRE,
    COLOUR,
    KIND,
    PRESENT,
    ROTATION,
    SIZE,
    AssemblyConfig,
    AssemblyNet,
)
from inference.models.minilm import MiniLM
from inference.training.data import TrainingSet, anchors, build

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """One run."""

    steps: int
    seed: int
    objects: int = 56_000
    batch: int = 96
    learning_rate: float = 1.2e-3
    warmup: int = 200
    null_text: float = 0.1
    text_noise: float = 0.1
    """Standard deviation of the noise on pooled vectors and token states, relative to their own."""
    time_deviation: float = 1.2
    average: float = 0.999
    absent_weight: float = 0.05
    threads: int = 2
    checkpoint_every: int = 500


def field_weights(fields: int) -> Tensor:
    """Weight of each column in the loss: places, sizes and colours are what one sees."""
    weights = torch.ones(fields)
    weights[CENTRE] = 2.0
    weights[SIZE] = 2.0
    weights[COLOUR] = 2.0
    weights[ROTATION] = 0.8
    weights[KIND] = 0.5
    return weights / weights.mean()


def loss_of(net: AssemblyNet, data: TrainingSet, config: TrainingConfig, generator: torch.Generator) -> Tensor:
    """Weighted squared error of the velocity on one random batch."""
    chosen = torch.randint(len(data.records), (config.batch,), generator=generator)
    target = data.records[chosen]  # (B, S, 27)
    pooled, tokens, mask = data.texts.batch(data.captions[chosen])
    pooled = pooled + torch.randn(pooled.shape, generator=generator) * (config.text_noise * pooled.std())
    tokens = tokens + torch.randn(tokens.shape, generator=generator) * (config.text_noise * tokens.std())
    kept = torch.rand(len(chosen), generator=generator) >= config.null_text
    pooled, mask = pooled * kept[:, None], mask & kept[:, None]
    t = torch.sigmoid(torch.randn(len(chosen), generator=generator) * config.time_deviation)
    noise = torch.randn(target.shape, generator=generator)
    mixed = noise + t[:, None, None] * (target - noise)
    error = (net(mixed, t, pooled, tokens, mask) - (target - noise)) ** 2
    present = (target[..., PRESENT : PRESENT + 1] > 0).float()
    weights = (present + (1 - present) * config.absent_weight).expand_as(error).clone()
    weights[..., PRESENT] = 1.0
    weights = weights * field_weights(error.shape[-1])
    loss: Tensor = (error * weights).sum() / weights.sum()
    return loss


def learning_rate(step: int, config: TrainingConfig) -> float:
    """Linear warm-up, then cosine to nothing."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def train(config: TrainingConfig, checkpoint: Path, stop_after: int | None = None) -> tuple[dict[str, Tensor], float]:
    """Run (or go on with) the training, up to step `stop_after` if that comes first.

    Returns the averaged weights and the mean loss of the last 500 steps.
    """
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    net = AssemblyNet(AssemblyConfig())
    average = {name: value.clone() for name, value in net.state_dict().items()}
    optimiser = torch.optim.AdamW(net.parameters(), lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    generator = torch.Generator().manual_seed(config.seed)
    first, recent = 0, []
    if checkpoint.exists():
        state: dict[str, Any] = torch.load(checkpoint, weights_only=True)
        net.load_state_dict(state["net"])
        average, first, recent = state["average"], state["step"], state["recent"]
        optimiser.load_state_dict(state["optimiser"])
        generator.set_state(state["generator"])
    started = time.monotonic()
    data = build(config.objects, config.seed, MiniLM())
    log.info("data_built", objects=config.objects, seconds=round(time.monotonic() - started, 1))
    started = time.monotonic()
    for step in range(first, min(config.steps, stop_after or config.steps)):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, config)
        loss = loss_of(net, data, config, generator)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        decay = min(config.average, (step + 1) / (step + 10))
        with torch.no_grad():
            for name, value in net.state_dict().items():
                average[name].lerp_(value, 1 - decay)
        recent = [*recent[-499:], float(loss.detach())]
        done = step + 1
        if done % 50 == 0:
            seconds = (time.monotonic() - started) / (done - first)
            log.info("step", step=done, loss=round(sum(recent[-50:]) / 50, 5), seconds_a_step=round(seconds, 3))
        if done % config.checkpoint_every == 0:
            state = {"net": net.state_dict(), "average": average, "step": done, "recent": recent}
            state |= {"optimiser": optimiser.state_dict(), "generator": generator.get_state()}
            torch.save(state, checkpoint.with_suffix(".part"))
            checkpoint.with_suffix(".part").replace(checkpoint)
    return average, sum(recent) / len(recent)


def export(average: dict[str, Tensor], out: Path) -> str:
    """Write fp16 weights and the confidence anchors; the file's SHA-256."""
    vectors, kinds = anchors(MiniLM())
    tensors = {name: value.half().contiguous() for name, value in average.items()}
    tensors["anchors"] = vectors.half()
    tensors["anchor_kinds"] = torch.tensor(list("\n".join(kinds).encode()), dtype=torch.uint8)
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, out)
    return hashlib.sha256(out.read_bytes()).hexdigest()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m inference.training.train", description=__doc__)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--stop-after", type=int, help="export after this step, before the schedule's end")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    config = TrainingConfig(steps=arguments.steps, seed=arguments.seed, threads=arguments.threads)
    average, loss = train(config, arguments.out.with_suffix(".checkpoint"), arguments.stop_after)
    log.info("trained", steps=config.steps, loss=round(loss, 5), sha256=export(average, arguments.out))


if __name__ == "__main__":
    main()
