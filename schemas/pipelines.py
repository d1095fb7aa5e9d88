"""The pipelines: which stages a workflow's job runs through.

A stage's prior is what the scheduler charges before it has measured one; its share is its part of the job's progress
bar. Both are rough on purpose: measured costs replace the prior after a few tasks.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, kw_only=True)
class StageSpec:
    """One step of a pipeline. prior_gpu_seconds: charged until costs are measured; share: of the job's progress."""

    name: str
    prior_gpu_seconds: float
    share: float


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """What serves a workflow.

    scope: what a user must be allowed to do to ask for it; model_versions: those that may be asked for, the newest
    last, which serves requests that name none.
    """

    pipeline_id: str
    workflow: str
    scope: str
    needs_prompt: bool
    model_versions: tuple[str, ...]
    stages: tuple[StageSpec, ...]

    def stage_index(self, stage: str) -> int:
        """Place of a stage, from 0. Raises KeyError for a stage that the pipeline does not have."""
        for index, spec in enumerate(self.stages):
            if spec.name == stage:
                return index
        raise KeyError(stage)


def kind(pipeline_id: str, stage: str, version: str) -> str:
    """Names what a slot loads and costs are measured by: `pipeline/stage@version`."""
    return f"{pipeline_id}/{stage}@{version}"


def parse_kind(text: str) -> tuple[str, str, str]:
    """Pipeline, stage and version of a kind. Raises ValueError when it is none."""
    pipeline_id, slash, rest = text.partition("/")
    stage, at, version = rest.partition("@")
    if not (slash and at and pipeline_id and stage and version):
        raise ValueError(f"{text!r} is no kind; one reads pipeline/stage@version")
    return pipeline_id, stage, version


# Edge of the square textures, in pixels, by the quality asked for; a request's texture_size goes before it.
TEXTURE_SIZES: Final[dict[str, int]] = {"draft": 512, "standard": 1024, "high": 1024}

TEXT_TO_3D: Final = "text-to-3d"
IMAGE_TO_3D: Final = "image-to-3d"

# Workflows that are offered, with the pipeline that serves a request which names none.
WORKFLOWS: Final[dict[str, str]] = {TEXT_TO_3D: "assembly"}

PIPELINES: Final[dict[str, Pipeline]] = {
    pipeline.pipeline_id: pipeline
    for pipeline in (
        Pipeline(
            pipeline_id="assembly",
            workflow=TEXT_TO_3D,
            scope="jobs",
            needs_prompt=True,
            model_versions=("1",),
            stages=(
                StageSpec(name="generate", prior_gpu_seconds=3.0, share=0.4),
                StageSpec(name="retopology", prior_gpu_seconds=1.0, share=0.1),
                StageSpec(name="texture", prior_gpu_seconds=4.0, share=0.5),
            ),
        ),
        # Stages of given durations and failures, for load and fault tests.
        Pipeline(
            pipeline_id="synthetic",
            workflow=TEXT_TO_3D,
            scope="synthetic",
            needs_prompt=False,
            # "2" does the same as "1", for tests of routing; "1" is last, so it serves where no rule says otherwise.
            model_versions=("2", "1"),
            stages=(
                StageSpec(name="generate", prior_gpu_seconds=0.05, share=0.4),
                StageSpec(name="retopology", prior_gpu_seconds=0.05, share=0.2),
                StageSpec(name="texture", prior_gpu_seconds=0.05, share=0.4),
            ),
        ),
    )
}
