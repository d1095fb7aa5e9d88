"""Load levels: up at once, down slowly and one at a time, and what each level takes away."""

import pytest

from streams.policy.config import DEFAULT, Level, Load
from streams.policy.load import (
    LONGEST_RETRY_AFTER_SECONDS,
    LevelState,
    degrade,
    effects,
    level_event,
    next_level,
    predicted_wait_seconds,
    refuses,
    retry_after_seconds,
)

LOAD = Load(
    levels=(
        Level(wait_seconds=60, age_seconds=120),
        Level(wait_seconds=180, age_seconds=300),
        Level(wait_seconds=600, age_seconds=900),
    ),
    release_factor=0.5,
    hold_seconds=10,
)


def look(
    state: LevelState, wait_seconds: float, now_seconds: float, *, age_seconds: float = 0, capacity: int = 4
) -> LevelState:
    return next_level(
        LOAD,
        state,
        wait_seconds=wait_seconds,
        oldest_age_seconds=age_seconds,
        capacity=capacity,
        now_ms=int(now_seconds * 1000),
    )


@pytest.mark.parametrize(("wait_seconds", "level"), [(0, 0), (60, 0), (61, 1), (181, 2), (601, 3), (1e9, 3)])
def test_a_level_is_entered_at_once_by_the_wait(wait_seconds: float, level: int) -> None:
    assert look(LevelState(), wait_seconds, 5).level == level


@pytest.mark.parametrize(("age_seconds", "level"), [(120, 0), (121, 1), (301, 2), (901, 3)])
def test_a_level_is_entered_at_once_by_the_age(age_seconds: float, level: int) -> None:
    assert look(LevelState(), 0, 5, age_seconds=age_seconds).level == level


def test_it_is_left_one_level_at_a_time_each_after_the_hold() -> None:
    state = look(LevelState(), 700, 0)
    levels = []
    for second in range(1, 40):
        state = look(state, 0, second)
        levels.append(state.level)
    assert levels == [3] * 10 + [2] * 10 + [1] * 10 + [0] * 9


def test_between_release_and_threshold_nothing_changes() -> None:
    state = look(LevelState(), 61, 0)
    for second in range(1, 100):
        state = look(state, 31, second)
        assert state.level == 1


def test_one_bad_second_starts_the_hold_anew() -> None:
    state = look(LevelState(), 61, 0)
    for second in range(1, 100):
        state = look(state, 31 if second % 9 == 0 else 0, second)
        assert state.level == 1


def test_a_wait_that_flutters_around_a_threshold_changes_the_level_once() -> None:
    state, changes = LevelState(), 0
    for second in range(200):
        after = look(state, 70 if second % 2 else 50, second)
        changes += after.level != state.level
        state = after
    assert changes == 1


def test_up_again_is_at_once_also_from_a_middle_level() -> None:
    state = look(LevelState(), 200, 0)
    assert state.level == 2
    assert look(state, 700, 1).level == 3
    assert look(state, 700, 1).since_ms == 1000


def test_without_slots_the_last_capacity_counts() -> None:
    assert predicted_wait_seconds(LevelState(), 400.0, 0) == 0
    state = look(LevelState(), 0, 0, capacity=4)
    assert predicted_wait_seconds(state, 400.0, 4) == 100
    state = look(state, 100, 1, capacity=0)
    assert predicted_wait_seconds(state, 400.0, 0) == 100
    assert look(state, 100, 1, capacity=0).level == 1


def test_retry_after_is_the_time_to_drain() -> None:
    at_three = LevelState(level=3)
    assert retry_after_seconds(LOAD, LevelState(level=2), 500) == 0
    assert retry_after_seconds(LOAD, at_three, 700) == 700 - 0.5 * 600 + 10
    assert retry_after_seconds(LOAD, at_three, 0) == 10  # the age of a task holds the level
    assert retry_after_seconds(LOAD, at_three, 1e9) == LONGEST_RETRY_AFTER_SECONDS


def test_draining_at_the_live_capacity_ends_level_3_when_retry_after_says() -> None:
    state, wait_seconds = look(LevelState(), 700, 0), 700.0
    promised = retry_after_seconds(LOAD, state, wait_seconds)
    second = 0
    while state.level == 3:
        second += 1
        state = look(state, wait_seconds - second, second)
    assert second == pytest.approx(promised, abs=2)


def test_level_1_caps_textures_for_everybody() -> None:
    degraded = degrade(LOAD, 1, tier="enterprise", quality="high", texture_size=8192)
    assert degraded == ("high", 2048, ("texture_size 8192 -> 2048 (load level 1)",))


def test_level_0_takes_nothing_away() -> None:
    assert degrade(LOAD, 0, tier="free", quality="high", texture_size=8192) == ("high", 8192, ())


def test_sizes_under_the_cap_and_unknown_defaults_stay() -> None:
    assert degrade(LOAD, 1, tier="pro", quality="high", texture_size=1024) == ("high", 1024, ())
    assert degrade(LOAD, 3, tier="pro", quality="high", texture_size=None) == ("high", None, ())


def test_a_default_size_over_the_cap_is_capped() -> None:
    degraded = degrade(LOAD, 1, tier="pro", quality="high", texture_size=None, default_sizes={"high": 4096})
    assert degraded == ("high", 2048, ("texture_size 4096 -> 2048 (load level 1)",))


@pytest.mark.parametrize("level", [2, 3])
def test_level_2_lowers_the_quality_of_free_alone(level: int) -> None:
    degraded = degrade(LOAD, level, tier="free", quality="standard", texture_size=4096)
    assert degraded.quality == "draft"
    assert degraded.texture_size == 2048
    assert len(degraded.adjustments) == 2
    assert degrade(LOAD, level, tier="pro", quality="standard", texture_size=None).adjustments == ()
    assert degrade(LOAD, level, tier="free", quality="draft", texture_size=None).adjustments == ()


@pytest.mark.parametrize(
    ("level", "tier", "lane", "refused"),
    [
        (2, "free", "batch", False),
        (3, "free", "interactive", True),
        (3, "pro", "batch", True),
        (3, "pro", "interactive", False),
        (3, "enterprise", "standard", False),
    ],
)
def test_level_3_refuses_free_and_batch(level: int, tier: str, lane: str, refused: bool) -> None:
    assert refuses(LOAD, level, tier=tier, lane=lane) is refused


def test_effects_grow_with_the_level() -> None:
    assert [len(effects(DEFAULT.load, level)) for level in range(4)] == [0, 1, 2, 3]
    assert "tier free, lane batch" in effects(DEFAULT.load, 3)[-1]


def test_the_event_names_both_levels_and_the_figures() -> None:
    event = level_event(
        LOAD,
        LevelState(level=1),
        LevelState(level=2, since_ms=77),
        domain="main",
        wait_seconds=181.25,
        oldest_age_seconds=3,
    )
    assert event["at"] == 77
    assert event["detail"]["before"] == "1"
    assert event["detail"]["after"] == "2"
    assert event["detail"]["thresholds"] == "wait 180 s, age 300 s"
