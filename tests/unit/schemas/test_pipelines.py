"""The pipelines are consistent with each other."""

import pytest

from schemas.pipelines import PIPELINES, TEXTURE_SIZES, WORKFLOWS, kind, parse_kind
from schemas.topics import catalogue, requests_topic

each_pipeline = pytest.mark.parametrize("pipeline_id", PIPELINES)


@each_pipeline
def test_a_pipeline_is_found_by_its_own_name_and_serves_an_offered_workflow(pipeline_id: str) -> None:
    assert PIPELINES[pipeline_id].pipeline_id == pipeline_id
    assert PIPELINES[pipeline_id].workflow in WORKFLOWS


@each_pipeline
def test_stages_have_names_of_their_own_and_shares_that_fill_the_bar(pipeline_id: str) -> None:
    stages = PIPELINES[pipeline_id].stages
    assert len({stage.name for stage in stages}) == len(stages) > 0
    assert sum(stage.share for stage in stages) == pytest.approx(1.0)
    assert all(stage.share > 0 and stage.prior_gpu_seconds > 0 for stage in stages)


@each_pipeline
def test_the_place_of_a_stage(pipeline_id: str) -> None:
    pipeline = PIPELINES[pipeline_id]
    assert [pipeline.stage_index(stage.name) for stage in pipeline.stages] == list(range(len(pipeline.stages)))
    with pytest.raises(KeyError, match="polish"):
        pipeline.stage_index("polish")


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_an_offered_workflow_has_a_pipeline_and_a_topic(workflow: str) -> None:
    assert PIPELINES[WORKFLOWS[workflow]].workflow == workflow
    assert requests_topic(workflow) in {topic.name for topic in catalogue(workflows=tuple(WORKFLOWS))}


@each_pipeline
def test_a_kind_names_pipeline_stage_and_version(pipeline_id: str) -> None:
    pipeline = PIPELINES[pipeline_id]
    parts = [(pipeline_id, stage.name, version) for stage in pipeline.stages for version in pipeline.model_versions]
    kinds = [kind(*part) for part in parts]
    assert [parse_kind(found) for found in kinds] == parts
    assert len(set(kinds)) == len(parts)


@pytest.mark.parametrize("text", ["", "assembly", "assembly/generate", "generate@1", "/generate@1", "a/@1", "a/b@"])
def test_what_is_no_kind(text: str) -> None:
    with pytest.raises(ValueError, match="is no kind"):
        parse_kind(text)


def test_without_a_rule_version_1_of_synthetic_serves() -> None:
    assert PIPELINES["synthetic"].model_versions == ("2", "1")


def test_textures_do_not_shrink_as_quality_rises() -> None:
    sizes = [TEXTURE_SIZES[quality] for quality in ("draft", "standard", "high")]
    assert sizes == sorted(sizes)
