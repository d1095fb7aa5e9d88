"""The worker's settings record."""

from pathlib import Path

import pytest

from inference.settings import WorkerSettings
from streams.kafka.settings import SettingsError


def test_defaults_serve_the_built_in_pipeline() -> None:
    settings = WorkerSettings.from_env({"MESHYARD_SLOT": "3", "MESHYARD_DATA_DIR": "/d"})
    assert (settings.slot, settings.pool, settings.data_dir) == (3, "default", Path("/d"))
    assert settings.serves == ("assembly/generate", "assembly/retopology", "assembly/texture")
    assert (settings.stage_timeout_seconds, settings.drain_seconds, settings.resource_class) == (600, 20, None)


def test_arguments_win_over_the_environment() -> None:
    env = {"MESHYARD_SLOT": "3", "MESHYARD_POOL": "p"}
    settings = WorkerSettings.from_env(env, pool="q", slot=0, synthetic=True)
    assert (settings.slot, settings.pool) == (0, "q")
    assert settings.serves == ("synthetic/generate", "synthetic/retopology", "synthetic/texture")


def test_a_slot_may_serve_some_stages() -> None:
    env = {"MESHYARD_SLOT": "3", "MESHYARD_SERVES": "assembly/retopology, synthetic/texture"}
    assert WorkerSettings.from_env(env).serves == ("assembly/retopology", "synthetic/texture")


def test_versions_and_capacity() -> None:
    env = {"MESHYARD_SLOT": "3", "MESHYARD_VERSIONS": "synthetic@2, assembly@1", "MESHYARD_CAPACITY": "8"}
    settings = WorkerSettings.from_env(env)
    assert (settings.versions, settings.capacity) == (("synthetic@2", "assembly@1"), 8)
    assert WorkerSettings.from_env(env, capacity=2).capacity == 2
    plain = WorkerSettings.from_env({"MESHYARD_SLOT": "3"})
    assert (plain.versions, plain.capacity) == ((), 1)


@pytest.mark.parametrize(
    ("env", "variable"),
    [
        ({}, "MESHYARD_SLOT"),
        ({"MESHYARD_SLOT": "-1"}, "MESHYARD_SLOT"),
        ({"MESHYARD_SLOT": "x"}, "MESHYARD_SLOT"),
        ({"MESHYARD_SLOT": "1", "MESHYARD_SERVES": "assembly/fly"}, "MESHYARD_SERVES"),
        ({"MESHYARD_SLOT": "1", "MESHYARD_SERVES": " , "}, "MESHYARD_SERVES"),
        ({"MESHYARD_SLOT": "1", "MESHYARD_VERSIONS": "assembly@9"}, "MESHYARD_VERSIONS"),
        ({"MESHYARD_SLOT": "1", "MESHYARD_VERSIONS": "assembly"}, "MESHYARD_VERSIONS"),
        ({"MESHYARD_SLOT": "1", "MESHYARD_CAPACITY": "0"}, "MESHYARD_CAPACITY"),
        ({"MESHYARD_SLOT": "1", "MESHYARD_CAPACITY": "257"}, "MESHYARD_CAPACITY"),
        ({"MESHYARD_SLOT": "1", "MESHYARD_RESOURCE_CLASS": "tpu"}, "MESHYARD_RESOURCE_CLASS"),
        ({"MESHYARD_SLOT": "1", "MESHYARD_STAGE_TIMEOUT_SECONDS": "0"}, "MESHYARD_STAGE_TIMEOUT_SECONDS"),
        ({"MESHYARD_SLOT": "1", "MESHYARD_DRAIN_SECONDS": "long"}, "MESHYARD_DRAIN_SECONDS"),
    ],
)
def test_wrong_values_are_named(env: dict[str, str], variable: str) -> None:
    with pytest.raises(SettingsError) as caught:
        WorkerSettings.from_env(env)
    assert caught.value.variable == variable
