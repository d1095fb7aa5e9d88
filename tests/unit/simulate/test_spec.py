"""Specifications: what is refused names the field and the remedy; what is accepted says what it says."""

from pathlib import Path

import pytest

from streams.simulate.spec import SpecError, load_spec, with_policy

LEAST = """
jobs = 10
[pools.default]
slots = 2
[[users]]
name = "a"
load = 0.5
"""
SPECS = sorted((Path(__file__).parents[3] / "docs" / "simulations").glob("*.toml"))


def test_the_least_specification_has_the_pipelines_defaults() -> None:
    spec = load_spec(LEAST)
    assert spec.stages == ("generate", "retopology", "texture")
    assert spec.service_of("generate").mean_seconds == 0.05
    assert spec.capacity == 2


@pytest.mark.parametrize("file", SPECS, ids=lambda file: file.stem)
def test_the_documents_specifications_can_be_read(file: Path) -> None:
    load_spec(file.read_text())


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("jobs = ", "spec"),
        (LEAST.replace("jobs = 10", ""), "duration_seconds"),
        (LEAST.replace("slots = 2", "slots = 0"), "pools.default.slots"),
        (LEAST.replace("slots = 2", "slots = 'two'"), "pools[...].slots"),
        (LEAST.replace("slots = 2", 'slots = 2\nserves = ["painting"]'), "pools.default.serves"),
        (LEAST.replace("slots = 2", 'slots = 2\nserves = ["generate"]'), "pools"),
        (LEAST.replace("load = 0.5", ""), "users.a.jobs_per_second"),
        (LEAST.replace("load = 0.5", "load = 0.5\njobs_per_second = 1"), "users.a.jobs_per_second"),
        (LEAST.replace("load = 0.5", "load = -1"), "users.a.jobs_per_second"),
        (LEAST.replace("load = 0.5", "load = 0.5\nlanes = { express = 1 }"), "users.a.lanes"),
        (LEAST.replace("load = 0.5", "load = 0.5\nlanes = { }"), "users.a"),
        (LEAST.replace("load = 0.5", "load = 0.5\nquality = { best = 1 }"), "users.a.quality"),
        (LEAST.replace("load = 0.5", "load = 0.5\nheight = 1"), "users[0]"),
        (LEAST + "\n[service.painting]\nmean_seconds = 1", "service.painting"),
        (LEAST + "\n[failures]\nboredom = 0.1", "failures.boredom"),
        (LEAST + "\n[failures]\ntransient = 1.0", "failures.transient"),
        (LEAST + "\n[policy]\ncost_decay = 2.0", "policy.cost_decay"),
        (LEAST + "\n[policy]\nspeed = 2.0", "policy.policy"),
        ('pipeline = "painting"\n' + LEAST, "pipeline"),
        ('first_stage = "painting"\n' + LEAST, "first_stage"),
    ],
)
def test_what_is_wrong_is_named(text: str, field: str) -> None:
    with pytest.raises(SpecError) as refused:
        load_spec(text)
    assert refused.value.field == field
    assert str(refused.value).startswith(f"{field}: ")


def test_a_policy_table_is_merged_with_the_default() -> None:
    spec = load_spec(LEAST + "\n[policy.tiers.pro]\nweight = 7.0")
    assert spec.policy.tier("pro").weight == 7.0
    assert spec.policy.tier("pro").max_running == 32
    assert spec.policy.lanes["interactive"] == 70.0


def test_a_policy_file_takes_its_place() -> None:
    assert with_policy(load_spec(LEAST), "affinity_gpu_seconds = 0.5").policy.affinity_gpu_seconds == 0.5
    with pytest.raises(SpecError, match=r"policy\.affinity_gpu_seconds"):
        with_policy(load_spec(LEAST), "affinity_gpu_seconds = -1.0")


def test_costs_are_spread_over_a_group() -> None:
    group = load_spec(LEAST.replace("load = 0.5", "load = 0.5\ncount = 3\ncost_factor_last = 5.0")).users[0]
    assert [group.cost_factor_of(k) for k in range(3)] == [1.0, 3.0, 5.0]
