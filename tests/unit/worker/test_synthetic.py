"""The synthetic stage: durations, failures, bad parameters."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from inference.stages.base import SilentContext, StageCanceled, StageError, StageInput
from inference.stages.factory import load_stage
from inference.stages.synthetic import MAX_SECONDS, Plan, SyntheticStage, parse_plan


def stage_input(out_dir: Path, parameters: dict[str, str], attempt: int = 1) -> StageInput:
    return StageInput(
        job_id="j",
        stage="retopology",
        attempt=attempt,
        prompt=None,
        seed=7,
        quality="draft",
        formats=("glb",),
        parameters=parameters,
        inputs={"result": out_dir / "in"},
        out_dir=out_dir,
    )


def test_it_makes_one_small_honest_file(tmp_path: Path) -> None:
    output = load_stage("synthetic", "retopology").run(stage_input(tmp_path, {}), SilentContext())
    (artefact,) = output.artefacts
    assert (artefact.role, artefact.media_type) == ("result", "application/json")
    assert json.loads(artefact.data or b"") == {
        "job_id": "j",
        "stage": "retopology",
        "attempt": 1,
        "seed": 7,
        "inputs": ["result"],
    }


def test_only_the_last_stage_may_leave_a_result(tmp_path: Path) -> None:
    given = stage_input(tmp_path, {"results": "last"})
    assert load_stage("synthetic", "retopology").run(given, SilentContext()).artefacts == ()
    assert parse_plan({"results": "last"}, "texture", 1).result


@pytest.mark.parametrize(
    ("parameters", "attempt", "plan"),
    [
        ({}, 1, Plan(seconds=0, mode="sleep", fail=None)),
        ({"seconds": "1.5"}, 1, Plan(seconds=1.5, mode="sleep", fail=None)),
        ({"seconds": "1", "seconds.retopology": "2"}, 1, Plan(seconds=2, mode="sleep", fail=None)),
        ({"seconds.texture": "2", "mode": "burn"}, 1, Plan(seconds=0, mode="burn", fail=None)),
        ({"fail": "transient:retopology:1"}, 1, Plan(seconds=0, mode="sleep", fail="transient")),
        ({"fail": "transient:retopology:1"}, 2, Plan(seconds=0, mode="sleep", fail=None)),
        ({"fail": "crash:texture:1, permanent:retopology:*"}, 9, Plan(seconds=0, mode="sleep", fail="permanent")),
        ({"fail": "crash:texture:*"}, 1, Plan(seconds=0, mode="sleep", fail=None)),
        ({"fail": "oom:retopology:*"}, 1, Plan(seconds=0, mode="sleep", fail="oom")),
        (
            {"fail": "rate_limited/2.5:retopology:*"},
            1,
            Plan(seconds=0, mode="sleep", fail="rate_limited", retry_after_seconds=2.5),
        ),
        ({"results": "each"}, 1, Plan(seconds=0, mode="sleep", fail=None)),
        ({"results": "last"}, 1, Plan(seconds=0, mode="sleep", fail=None, result=False)),
        ({"seconds": "1", "seconds@2": "9"}, 1, Plan(seconds=1, mode="sleep", fail=None)),
    ],
)
def test_parameters_say_what_an_attempt_does(parameters: dict[str, str], attempt: int, plan: Plan) -> None:
    assert parse_plan(parameters, "retopology", attempt) == plan


def test_a_version_may_behave_in_its_own_way() -> None:
    parameters = {"seconds": "1", "seconds.retopology@2": "3", "fail@2": "transient:retopology:*", "mode": "burn"}
    assert parse_plan(parameters, "retopology", 1, "1") == Plan(seconds=1, mode="burn", fail=None)
    assert parse_plan(parameters, "retopology", 1, "2") == Plan(seconds=3, mode="burn", fail="transient")


@pytest.mark.parametrize(
    ("parameters", "wait"),
    [
        ({}, 0),
        ({"seconds": "2"}, 2),
        ({"seconds": "2", "fail": "transient:retopology:1"}, 2),
        ({"mode": "burn"}, 0),
        ({"seconds": "2", "mode": "burn"}, None),
        ({"fail": "crash:retopology:1"}, None),
    ],
)
def test_who_sleeps_only_waits(tmp_path: Path, parameters: dict[str, str], wait: float | None) -> None:
    assert SyntheticStage("retopology").wait_seconds(stage_input(tmp_path, parameters)) == wait


@pytest.mark.parametrize(
    "parameters",
    [
        {"seconds": "soon"},
        {"seconds@2": "1", "seconds.flight@2": "1"},
        {"fail": "rate_limited/soon:retopology:1"},
        {"seconds": "-1"},
        {"seconds": "nan"},
        {"seconds": "inf"},
        {"seconds": str(MAX_SECONDS + 1)},
        {"seconds.flight": "1"},
        {"mode": "rest"},
        {"results": "some"},
        {"fail": "transient"},
        {"fail": "sometimes:retopology:1"},
        {"fail": "transient:flight:1"},
        {"fail": "transient:retopology:0"},
        {"fail": "transient:retopology:one"},
        {"fail": "transient:retopology:1:2"},
    ],
)
def test_bad_parameters_are_invalid_and_named(parameters: dict[str, str]) -> None:
    with pytest.raises(StageError) as caught:
        parse_plan(parameters, "retopology", 1)
    assert caught.value.error_class == "invalid"
    assert any(name in caught.value.message for name in parameters)


@pytest.mark.parametrize("kind", ["transient", "permanent"])
def test_failures_are_raised(tmp_path: Path, kind: str) -> None:
    with pytest.raises(StageError) as caught:
        SyntheticStage("retopology").run(stage_input(tmp_path, {"fail": f"{kind}:retopology:1"}), SilentContext())
    assert caught.value.error_class == kind


class Canceling:
    """Cancels at the first chance after some progress."""

    def __init__(self) -> None:
        self.fractions: list[float] = []

    def progress(self, fraction: float, message: str) -> None:
        self.fractions.append(fraction)
        if len(self.fractions) == 2:
            raise StageCanceled


@pytest.mark.parametrize("mode", ["sleep", "burn"])
def test_it_looks_for_a_cancel_while_it_passes_time(tmp_path: Path, mode: str) -> None:
    context = Canceling()
    with pytest.raises(StageCanceled):
        SyntheticStage("retopology").run(stage_input(tmp_path, {"seconds": "60", "mode": mode}), context)
    assert context.fractions == sorted(context.fractions)


def test_its_child_needs_no_torch() -> None:
    code = (
        "import sys, inference.child; from inference.stages.factory import load_stage; "
        "load_stage('synthetic', 'generate'); "
        "sys.exit(bool({'torch', 'numpy', 'confluent_kafka', 'structlog'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
