"""The model and a few finished jobs, made once a run."""

from pathlib import Path

import pytest
import torch

from inference.models.assembly import AssemblyModel
from inference.models.registry import load_assembly
from inference.stages.base import Stage, StageOutput
from inference.stages.factory import STAGES, load_stage
from inference.training.sheet import run_chain

PROMPT = "a tall crimson armchair"
SEEDS = (0, 1, 2)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)  # other tests run at the same time, and results stay the same everywhere


@pytest.fixture(scope="session")
def model() -> AssemblyModel:
    return load_assembly()


@pytest.fixture(scope="session")
def stages() -> list[Stage]:
    return [load_stage("assembly", name) for name in STAGES]


@pytest.fixture(scope="session")
def armchairs(stages: list[Stage], tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, StageOutput]]:
    """The prompt of the README through all stages, for three seeds."""
    folder: Path = tmp_path_factory.mktemp("armchairs")
    return [run_chain(stages, PROMPT, seed, folder / str(seed)) for seed in SEEDS]
