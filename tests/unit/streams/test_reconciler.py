"""How a forgotten job is recognised and where it goes on."""

from typing import Any

import pytest

from schemas.codec import Codec
from schemas.events import job_event
from schemas.jobs import Transition
from streams.reconciler import _QUEUED, _resume

JOB = {
    "job_id": "0" * 36, "user_id": "somebody", "workflow": "text-to-3d", "pipeline_id": "synthetic",
    "created_at": 1, "traceparent": None,
}  # fmt: skip


@pytest.mark.parametrize("transition", list(Transition))
def test_queued_events_are_known_by_their_bytes(transition: Transition) -> None:
    """Others are not decoded; should their bytes contain the mark by chance, that costs a decode and nothing else."""
    value = Codec().encode("job_event", job_event(JOB, transition, at=2, stage_count=3))
    assert (_QUEUED in value) == (transition is Transition.QUEUED)


def artefact(name: str) -> dict[str, Any]:
    return {"role": name, "uri": name, "sha256": "", "bytes": 1, "media_type": ""}


@pytest.mark.parametrize(
    ("finished", "stage", "kept"),
    [
        ([], "generate", []),
        ([0], "retopology", [0]),
        ([0, 1], "texture", [0, 1]),
        ([1], "generate", []),  # a stage before it is not known to have succeeded
        ([0, 1, 2], "texture", [0, 1]),  # its end was not told: the last stage says it again
    ],
)
def test_a_job_goes_on_after_the_stages_that_succeeded(finished: list[int], stage: str, kept: list[int]) -> None:
    ready: dict[str, Any] = {"pipeline_id": "synthetic", "stage": "generate", "artefacts": [artefact("given")]}
    _resume(ready, {index: [artefact(str(index))] for index in finished})
    assert ready["stage"] == stage
    assert [found["role"] for found in ready["artefacts"]] == ["given", *map(str, kept)]
