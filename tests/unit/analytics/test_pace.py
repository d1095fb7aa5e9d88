"""Blocks close quickly behind a pause, and ever farther apart under steady load."""

import itertools

import pytest

from analytics.pace import Pace


def closes(pace: Pace, times: int, now: float = 100.0) -> list[float]:
    """When so many blocks close, of records that never stop coming; storing takes no time."""
    found = []
    for _ in range(times):
        now = pace.due(now)
        pace.stored(now)
        found.append(now)
    return found


def test_blocks_grow_rarer_under_steady_load() -> None:
    found = closes(Pace(shortest_seconds=2.0, longest_seconds=6.0), 6)
    assert found[0] == pytest.approx(100.05)
    assert [b - a for a, b in itertools.pairwise(found)] == pytest.approx([2.0, 4.0, 6.0, 6.0, 6.0])


def test_behind_a_pause_the_first_one_is_quick_again() -> None:
    pace = Pace(shortest_seconds=2.0, longest_seconds=6.0)
    last = closes(pace, 5)[-1]
    assert pace.due(last + 5.0) == pytest.approx(last + 6.0)  # no pause yet at this pace
    pace.stored(last + 6.0)
    assert pace.due(last + 12.5) == pytest.approx(last + 12.55)
    pace.stored(last + 12.55)
    assert pace.due(last + 12.6) == pytest.approx(last + 14.55)


def test_without_a_pause_to_keep_blocks_close_at_once() -> None:
    found = closes(Pace(shortest_seconds=0.0, longest_seconds=6.0), 3)
    assert found == pytest.approx([100.05, 100.1, 100.15])


def test_the_longest_never_undercuts_the_shortest() -> None:
    found = closes(Pace(shortest_seconds=10.0, longest_seconds=6.0), 4)
    assert [b - a for a, b in itertools.pairwise(found)] == pytest.approx([10.0, 10.0, 10.0])
