"""What a quality, a texture size and parameters make of the built-in pipeline's figures."""

import pytest

from inference.stages.base import StageError
from inference.stages.settings import QUALITIES, settings_for


@pytest.mark.parametrize(
    ("wanted", "parameters", "edge"),
    [
        (None, {}, 1024),
        (512, {}, 512),
        (2048, {}, 2048),
        (4096, {}, 2048),  # larger than the pipeline bakes
        (8192, {"texture_size": "256"}, 256),
        (512, {"texture_size": "2048"}, 512),  # what load took away stays away
        (None, {"texture_size": "2048"}, 2048),
        (1, {}, 128),
    ],
)
def test_the_smaller_of_what_was_asked_for_is_made(wanted: int | None, parameters: dict[str, str], edge: int) -> None:
    assert settings_for("standard", parameters, wanted).texture_size == edge


def test_other_figures_are_untouched_by_the_texture_size() -> None:
    made = settings_for("draft", {"target_faces": "500"}, 512)
    assert (made.target_faces, made.resolution) == (500, QUALITIES["draft"].resolution)


@pytest.mark.parametrize(
    ("quality", "parameters"), [("best", {}), ("draft", {"texture_size": "8192"}), ("draft", {"resolution": "-1"})]
)
def test_what_cannot_be_made_is_invalid(quality: str, parameters: dict[str, str]) -> None:
    with pytest.raises(StageError) as caught:
        settings_for(quality, parameters)
    assert caught.value.error_class == "invalid"
