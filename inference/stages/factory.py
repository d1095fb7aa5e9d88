"""Which code serves a stage of a pipeline. Imports happen here, late, so that a slot loads only its own."""

from inference.stages.base import Stage, StageError
from schemas.pipelines import PIPELINES

STAGES = ("generate", "retopology", "texture")


def load_stage(pipeline_id: str, stage: str, model_version: str | None = None) -> Stage:
    """The stage `stage` of `pipeline_id` in a version (None: the newest), loaded and ready to run.

    Raises `StageError` of class `permanent` when there is no such pipeline, stage or version, and what the
    stage's own `load` raises.
    """
    pipeline = PIPELINES.get(pipeline_id)
    if model_version is not None and pipeline is not None and model_version not in pipeline.model_versions:
        raise StageError("permanent", f"pipeline {pipeline_id!r} has no model version {model_version!r}")
    made = _make(pipeline_id, stage, model_version)
    made.load()
    return made


def _make(pipeline_id: str, stage: str, model_version: str | None) -> Stage:
    match (pipeline_id, stage):
        case ("assembly", "generate"):
            from inference.stages.generate import GenerateStage

            return GenerateStage(model_version)
        case ("assembly", "retopology"):
            from inference.stages.retopology import RetopologyStage

            return RetopologyStage()
        case ("assembly", "texture"):
            from inference.stages.texture import TextureStage

            return TextureStage()
        case ("synthetic", name) if name in STAGES:
            from inference.stages.synthetic import SyntheticStage

            return SyntheticStage(name, model_version)
    raise StageError("permanent", f"no stage {stage!r} in pipeline {pipeline_id!r}")
