"""The training set and a training run of a few steps."""

from pathlib import Path

import numpy as np
import pytest
import torch

from inference.models.assembly import AssemblyConfig, AssemblyModel
from inference.training.captions import KINDS, draw
from inference.training.data import build
from inference.training.train import TrainingConfig, learning_rate, train
from inference.training.words import COLOURS, MATERIALS


def test_every_object_fits_the_model_and_the_box() -> None:
    rng = np.random.default_rng(11)
    for index in range(20 * len(KINDS)):
        primitives = draw(rng, index % len(KINDS)).primitives
        assert len(primitives.primitives) <= AssemblyConfig().slots
        low, high = primitives.bounds()
        assert np.abs([low, high]).max() < 1.0


def test_a_seed_draws_the_same_objects() -> None:
    one, other = ([draw(np.random.default_rng(4)) for _ in range(20)] for _ in range(2))
    assert one == other


def test_captions_say_what_the_object_looks_like() -> None:
    rng = np.random.default_rng(2)
    seen = 0
    for _ in range(600):
        example = draw(rng)
        if " with " in example.caption or any(" " in word and word in example.caption for word in COLOURS):
            continue
        words = example.caption.split()
        for word in {"crimson", "turquoise", "navy", "charcoal", "ivory", "green"} & set(words):
            colours = np.array([item.colour for item in example.primitives.primitives])
            assert np.abs(colours - COLOURS[word]).max(1).min() < 0.1, example.caption
            seen += 1
    assert seen > 10


def test_every_kind_names_known_words() -> None:
    assert len(KINDS) == 29
    for kind in KINDS:
        assert set(kind.materials) <= set(MATERIALS)
        for word in (*kind.looks, *(word for part in kind.parts.values() for word in part.looks)):
            assert word in COLOURS or word in MATERIALS or word == ""


def test_the_learning_rate_warms_up_and_ends_at_nothing() -> None:
    config = TrainingConfig(steps=1000, seed=0)
    rates = [learning_rate(step, config) for step in range(1000)]
    assert max(rates) == rates[config.warmup] == config.learning_rate
    assert rates[-1] < 1e-8


def test_an_interrupted_run_ends_like_a_whole_one(tmp_path: Path) -> None:
    torch.use_deterministic_algorithms(True)
    try:
        config = TrainingConfig(steps=4, seed=3, objects=58, batch=8, threads=1, checkpoint_every=2)
        whole, loss = train(config, tmp_path / "whole")
        train(config, tmp_path / "parts", stop_after=2)
        parts, same_loss = train(config, tmp_path / "parts")
    finally:
        torch.use_deterministic_algorithms(False)
    assert loss == pytest.approx(same_loss)
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value)


def test_a_batch_of_captions_is_padded_and_masked(model: AssemblyModel) -> None:
    data = build(29, 0, model.encoder)
    pooled, tokens, mask = data.texts.batch(data.captions[:5])
    assert pooled.shape == (5, 384)
    assert tokens.shape[:2] == mask.shape
    lengths = (data.texts.starts[1:] - data.texts.starts[:-1])[data.captions[:5]]
    assert mask.sum(1).tolist() == lengths.tolist()
