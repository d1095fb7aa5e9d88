"""Which code serves a stage of a pipeline. Imports happen here, late, so that a slot loads only its own."""

from inference.stages.base import Stage, StageError

STAGES = ("generate", "retopology", "texture")


def load_stage(pipeline_id: str, stage: str) -> Stage:
    """The stage `stage` of `pipeline_id`, loaded and ready to run.

    Raises `StageError` of class `permanent` when there is no such pipeline or stage, and what the
    stage's own `load` raises.
    """
    made = _make(pipeline_id, stage)
    made.load()
    return made


def _make(pipeline_id: str, stage: str) -> Stage:
    match (pipeline_id, stage):
        case ("assembly", "generate"):
            from inference.stages.generate import GenerateStage

            return GenerateStage()
        case ("assembly", "retopology"):
            from inference.stages.retopology import RetopologyStage

            return RetopologyStage()
        case ("assembly", "texture"):
            from inference.stages.texture import TextureStage

            return TextureStage()
        case ("synthetic", name) if name in STAGES:
            from inference.stages.synthetic import SyntheticStage

            return SyntheticStage(name)
    raise StageError("permanent", f"no stage {stage!r} in pipeline {pipeline_id!r}")
