"""Load levels 0 to 3: how much of the service is taken away while more is asked for than can be done.

Two figures decide, the predicted wait (waiting GPU-seconds over live capacity) and the age of the oldest queued task.
A level is entered at once when either figure exceeds its threshold. It is left, one level at a time, after both
figures have been under release_factor × its thresholds for hold_seconds; so the level does not flutter.

1: textures are capped. 2: some tiers get a lower quality too. 3: submissions of some tiers and lanes are refused.
"""

import math
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

from streams.policy.config import Level, Load

LONGEST_RETRY_AFTER_SECONDS: Final = 3600.0
NO_SIZES: Final[Mapping[str, int]] = {}


class LevelState(msgspec.Struct, frozen=True, kw_only=True):
    """The level in force; part of the scheduler's state.

    since_ms: when it began; calm_since_ms: since when both figures allow a lower one, None while they do not;
    capacity: the last one that was not 0.
    """

    level: int = 0
    since_ms: int = 0
    calm_since_ms: int | None = None
    capacity: int = 0


class Degraded(NamedTuple):
    """What a task gets, and in words for its user what was taken away."""

    quality: str
    texture_size: int | None
    adjustments: tuple[str, ...]


def predicted_wait_seconds(state: LevelState, queued_gpu_seconds: float, capacity: int) -> float:
    """Waiting GPU-seconds over capacity. While no slot is up the last capacity counts: workers that are started again
    are no overload, and if they stay away the age of the oldest task tells."""
    effective = capacity or state.capacity
    return queued_gpu_seconds / effective if effective else 0.0


def next_level(
    load: Load, state: LevelState, *, wait_seconds: float, oldest_age_seconds: float, capacity: int, now_ms: int
) -> LevelState:
    """The state after one look at the figures."""
    capacity = capacity or state.capacity
    reached = _level(load, wait_seconds, oldest_age_seconds, 1.0)
    if reached > state.level:
        return LevelState(level=reached, since_ms=now_ms, capacity=capacity)
    if state.level == 0 or _level(load, wait_seconds, oldest_age_seconds, load.release_factor) >= state.level:
        return msgspec.structs.replace(state, calm_since_ms=None, capacity=capacity)
    calm_since_ms = now_ms if state.calm_since_ms is None else state.calm_since_ms
    if now_ms - calm_since_ms < load.hold_seconds * 1000:
        return msgspec.structs.replace(state, calm_since_ms=calm_since_ms, capacity=capacity)
    return LevelState(level=state.level - 1, since_ms=now_ms, calm_since_ms=now_ms, capacity=capacity)


def _level(load: Load, wait_seconds: float, age_seconds: float, factor: float) -> int:
    """The greatest level of which a threshold, times `factor`, is exceeded; 0 if none is."""
    found = 0
    for number, level in enumerate(load.levels, start=1):
        if wait_seconds > factor * level.wait_seconds or age_seconds > factor * level.age_seconds:
            found = number
    return found


def retry_after_seconds(load: Load, state: LevelState, wait_seconds: float) -> float:
    """When to ask again: the time in which the live capacity drains the backlog to where level 3 ends, and the time
    for which it must stay there; 0 below level 3, an hour at most."""
    if state.level < len(load.levels):
        return 0.0
    drain_seconds = max(0.0, wait_seconds - load.release_factor * load.levels[-1].wait_seconds)
    return float(min(LONGEST_RETRY_AFTER_SECONDS, max(1.0, math.ceil(drain_seconds + load.hold_seconds))))


def degrade(
    load: Load,
    level: int,
    *,
    tier: str,
    quality: str,
    texture_size: int | None,
    default_sizes: Mapping[str, int] = NO_SIZES,
) -> Degraded:
    """What a task gets at a level. texture_size: edge in pixels, None for the quality's own, which `default_sizes`
    names where the cap could touch it."""
    adjustments: list[str] = []
    lower = load.degrade_quality_to
    if level >= 2 and tier in load.degrade_tiers and quality in load.degrade_quality_from and quality != lower:
        adjustments.append(f"quality {quality} -> {lower} (load level {level})")
        quality = lower
    wanted = texture_size if texture_size is not None else default_sizes.get(quality, 0)
    if level >= 1 and wanted > load.texture_cap:
        adjustments.append(f"texture_size {wanted} -> {load.texture_cap} (load level {level})")
        texture_size = load.texture_cap
    return Degraded(quality, texture_size, tuple(adjustments))


def refuses(load: Load, level: int, *, tier: str, lane: str) -> bool:
    """Whether a submission is turned away at a level."""
    return level >= len(load.levels) and (tier in load.refuse_tiers or lane in load.refuse_lanes)


def effects(load: Load, level: int) -> tuple[str, ...]:
    """What a level does, for people."""
    found = []
    if level >= 1:
        found.append(f"textures have at most {load.texture_cap} pixels")
    if level >= 2 and load.degrade_tiers:
        qualities = ", ".join(load.degrade_quality_from)
        found.append(f"{qualities} of tier {', '.join(load.degrade_tiers)} becomes {load.degrade_quality_to}")
    if level >= len(load.levels):
        refused = [f"tier {name}" for name in load.refuse_tiers] + [f"lane {name}" for name in load.refuse_lanes]
        found.append(f"submissions of {', '.join(refused)} are refused" if refused else "nothing is refused")
    return tuple(found)


def level_event(
    load: Load, before: LevelState, after: LevelState, *, domain: str, wait_seconds: float, oldest_age_seconds: float
) -> dict[str, Any]:
    """The PlatformEvent of a change of level."""
    return {
        "kind": "load_level",
        "domain": domain,
        "subject": f"level {after.level}",
        "detail": {
            "before": str(before.level),
            "after": str(after.level),
            "predicted_wait_seconds": f"{wait_seconds:.1f}",
            "oldest_age_seconds": f"{oldest_age_seconds:.1f}",
            "thresholds": _thresholds(load.levels[max(before.level, after.level) - 1]),
            "effects": "; ".join(effects(load, after.level)) or "none",
        },
        "at": after.since_ms,
    }


def _thresholds(level: Level) -> str:
    return f"wait {level.wait_seconds:g} s, age {level.age_seconds:g} s"
