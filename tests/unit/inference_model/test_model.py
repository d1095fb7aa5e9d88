"""The text encoder, the record's coding, sampling, and the registry."""

from pathlib import Path

import numpy as np
import pytest
import torch

from inference.geometry.primitives import InvalidPrimitives
from inference.models import registry
from inference.models.assembly import FIELDS, PRESENT, ROTATION, AssemblyModel, decode, encode
from inference.models.errors import ModelUnavailableError, WeightsCorruptError
from inference.models.minilm import MiniLM
from inference.training.captions import KINDS, draw


def test_sentences_of_one_meaning_are_near_each_other(model: AssemblyModel) -> None:
    # Figures of the published model (sentence-transformers/all-MiniLM-L6-v2), to three digits.
    pooled = model.encoder.encode(["That is a happy person", "That is a happy dog", "Today is a sunny day"]).pooled
    torch.testing.assert_close(pooled.norm(dim=1), torch.ones(3))
    cosines = pooled[0] @ pooled[1:].T
    assert float(cosines[0]) == pytest.approx(0.695, abs=2e-3)
    assert float(cosines[1]) == pytest.approx(0.257, abs=2e-3)


def test_padding_does_not_change_a_text(model: AssemblyModel) -> None:
    alone = model.encoder.encode(["a red mug"])
    padded = model.encoder.encode(["a red mug", "a very long text about a chair and a table and a lamp"])
    torch.testing.assert_close(padded.pooled[0], alone.pooled[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(padded.tokens[0][padded.mask[0]], alone.tokens[0], atol=1e-4, rtol=1e-3)


def test_a_text_without_end_is_cut(model: AssemblyModel) -> None:
    assert model.encoder.encode(["chair " * 5000]).tokens.shape[1] == model.encoder.config.max_tokens


@pytest.mark.parametrize("kind", range(len(KINDS)))
def test_a_record_decodes_to_the_object_that_it_was_made_of(kind: int) -> None:
    before = draw(np.random.default_rng(kind), kind).primitives
    after = decode(encode(before))
    for one, other in zip(before.primitives, after.primitives, strict=True):
        assert (one.kind, one.subtract, one.mirror_x, one.mirror_z) == (
            other.kind,
            other.subtract,
            other.mirror_x,
            other.mirror_z,
        )
        np.testing.assert_allclose(one.centre, other.centre, atol=1e-4)
        np.testing.assert_allclose(one.size, other.size, atol=0.02)  # nothing is thinner than the grid sees
        np.testing.assert_allclose(one.colour, other.colour, atol=1e-4)


def test_any_record_decodes_to_a_usable_object_or_says_that_it_is_empty() -> None:
    rng = np.random.default_rng(0)
    for scale in (0.0, 1.0, 50.0):
        record = (rng.normal(size=(12, FIELDS)) * scale).astype(np.float32)
        record[0, PRESENT] = 1.0
        record[1, ROTATION] = 1.0  # two equal columns
        for item in decode(record).primitives:
            matrix = np.array(item.rotation)
            np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-3)
            assert np.linalg.det(matrix) == pytest.approx(1.0, abs=1e-3)
    with pytest.raises(InvalidPrimitives):
        decode(np.full((12, FIELDS), -1.0, np.float32))


def test_a_seed_gives_the_same_object_again_and_another_seed_another(model: AssemblyModel) -> None:
    one, again, other = (model.sample(["a red chair"], [seed])[0] for seed in (7, 7, 8))
    assert one == again
    assert one.primitives != other.primitives


def test_a_batch_gives_what_single_calls_give(model: AssemblyModel) -> None:
    prompts, seeds = ["a blue mug", "an old oak table with steel legs"], [3, 2**63 + 5]
    together = model.sample(prompts, seeds)
    for prompt, seed, sample in zip(prompts, seeds, together, strict=True):
        alone = model.sample([prompt], [seed])[0]
        record, expected = encode(sample.primitives), encode(alone.primitives)
        np.testing.assert_allclose(record, expected, atol=2e-2)


def test_confidence_tells_trained_kinds_from_others(model: AssemblyModel) -> None:
    known = model.sample(["a crimson armchair", "a wooden robot", "a green bottle"], [0, 0, 0])
    assert [sample.nearest_kind for sample in known] == ["armchair", "robot", "bottle"]
    assert not any(sample.low_confidence for sample in known)
    foreign = model.sample(["a dragon breathing fire", "the idea of freedom", "xqzt"], [0, 0, 0])
    assert all(sample.low_confidence for sample in foreign)
    assert all(sample.primitives.primitives for sample in foreign)


def test_weights_are_small_and_pinned() -> None:
    entry = registry.find("assembly")
    path = Path(registry.__file__).parent / "weights" / entry.weights
    assert path.stat().st_size < 10_000_000
    AssemblyModel.load(path, entry.sha256)


def test_other_weights_are_refused(tmp_path: Path) -> None:
    entry = registry.find("assembly", "1")
    spoiled = tmp_path / "spoiled.safetensors"
    content = bytearray((Path(registry.__file__).parent / "weights" / entry.weights).read_bytes())
    content[-1] ^= 1
    spoiled.write_bytes(content)
    with pytest.raises(WeightsCorruptError) as caught:
        AssemblyModel.load(spoiled, entry.sha256)
    assert caught.value.expected_sha256 == entry.sha256
    with pytest.raises(ModelUnavailableError):
        AssemblyModel.load(tmp_path / "none", entry.sha256)


def test_unknown_models_are_named_with_what_there_is() -> None:
    for name, version in (("assembly", "99"), ("shape", None)):
        with pytest.raises(ModelUnavailableError, match="assembly 1"):
            registry.find(name, version)


def test_the_encoder_needs_its_files(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="No such file"):
        MiniLM(tmp_path)
