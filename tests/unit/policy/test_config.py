"""Policies: what a file may say, and how it is told what is wrong with it."""

import pytest

from streams.policy.config import DEFAULT, LANES, PolicyError, Tier, digest, dump_policy, load_policy, parse_policy


def test_an_empty_file_is_the_default() -> None:
    assert load_policy("") == DEFAULT
    assert DEFAULT.lanes == {"interactive": 70.0, "standard": 25.0, "batch": 5.0}
    assert tuple(DEFAULT.lanes) == LANES


def test_a_file_names_only_what_it_changes() -> None:
    policy = load_policy("[lanes]\nbatch = 10\n[tiers.pro]\nweight = 6\n[tiers.studio]\nmax_running = 9\n")
    assert policy.lanes == {"interactive": 70.0, "standard": 25.0, "batch": 10.0}
    assert policy.tier("pro") == Tier(weight=6.0, max_running=32, max_backlog=5_000)
    assert policy.tier("studio") == Tier(max_running=9)
    assert policy.tier("nobody has heard of it") == policy.tier("free")
    assert policy.pool("any").lanes == LANES
    assert policy.pool("batch").lanes == ("standard", "batch")
    assert policy.retry("texture") == policy.retries["*"]


def test_a_policy_survives_being_written() -> None:
    policy = load_policy("[costs]\n'assembly/texture' = 4\n'assembly/generate' = 2\n")
    assert parse_policy(dump_policy(policy)) == policy
    assert tuple(parse_policy(dump_policy(policy)).lanes) == LANES
    assert digest(policy) == digest(load_policy("[costs]\n'assembly/generate' = 2\n'assembly/texture' = 4\n"))
    assert digest(policy) != digest(DEFAULT)


@pytest.mark.parametrize(
    ("text", "field", "words"),
    [
        ("lanes = ", "policy", "no TOML"),
        ("speed = 3", "policy", "unknown field `speed`"),
        ("[tiers.pro]\nweigth = 3", "tiers", "unknown field `weigth`"),
        ("[tiers.pro]\nweight = 'much'", "tiers", "Expected `float`"),
        ("[tiers.pro]\nweight = 0", "tiers.pro.weight", "0.0 is not within"),
        ("[tiers.pro]\nweight = nan", "tiers.pro.weight", "nan is not within"),
        ("[tiers.pro]\nmax_running = 0", "tiers.pro.max_running", "at least 1"),
        ("[lanes]\nexpress = 3", "lanes", "interactive, standard, batch"),
        ("[pools.a]\nlanes = []", "pools.a.lanes", "empty"),
        ("[pools.a]\nlanes = ['express']", "pools.a", "no lane"),
        ("[pools.a]\nfirst = 'batch'\nlanes = ['standard']", "pools.a.first", "not among"),
        ("[pools.a]\nreserve = 1", "pools.a.reserve", "needs `first`"),
        ("[retries.texture]\ncap_seconds = 0.5", "retries.texture.cap_seconds", "at least 1"),
        ("[load]\nrelease_factor = 0", "load.release_factor", "(0, 1]"),
        ("[load]\nrefuse_lanes = ['express']", "load.refuse_lanes", "no lane"),
        ("[[load.levels]]\nwait_seconds = 1\nage_seconds = 1", "load.levels", "give three"),
        ("cost_decay = 2", "cost_decay", "(0, 1]"),
        ("affinity_gpu_seconds = inf", "affinity_gpu_seconds", "at least 0"),
    ],
)
def test_a_wrong_file_is_told_the_field_and_the_remedy(text: str, field: str, words: str) -> None:
    with pytest.raises(PolicyError) as caught:
        load_policy(text)
    assert caught.value.field.startswith(field)
    assert words in str(caught.value)


def test_falling_levels_are_refused() -> None:
    level = "[[load.levels]]\nwait_seconds = {}\nage_seconds = 5\n"
    with pytest.raises(PolicyError, match="fall"):
        load_policy(level.format(3) + level.format(2) + level.format(4))
