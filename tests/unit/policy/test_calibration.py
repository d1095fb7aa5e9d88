"""Histograms of work, rates of lanes, and bounds that most jobs keep while load and capacity change."""

from itertools import pairwise
from typing import Literal

import msgspec
import pytest

from schemas.eta import gpu_seconds_before
from streams.policy.calibration import (
    MOST_BINS,
    WINDOW,
    Calibration,
    Expectation,
    Flow,
    Histogram,
    Scores,
    Sight,
    build_histogram,
)
from tests.unit.policy.mixed_load import LANES, Job, MixedLoad, traffic

WEIGHTS = {"interactive": 70.0, "standard": 25.0, "batch": 5.0}


def exact_before(flows: list[Flow], tag: float) -> float:
    return sum(
        flow.gpu_seconds for flow in flows for number in range(flow.tasks) if flow.start_tag + number * flow.step <= tag
    )


def sights(queued: dict[str, int]) -> dict[str, Sight]:
    return {lane: Sight(WEIGHTS[lane], queued.get(lane, 0), Histogram()) for lane in LANES}


def test_a_histogram_holds_all_work_in_rising_bins() -> None:
    flows = [Flow(10.0 + n, 0.5 + n % 3, 1 + n % 7, 2.0) for n in range(50)]
    found = build_histogram(12.0, flows)
    assert sum(found.gpu_seconds) == pytest.approx(sum(f.tasks * f.gpu_seconds for f in flows))
    assert len(found.gpu_seconds) <= MOST_BINS
    assert len(found.edges) == len(found.gpu_seconds) + 1
    assert all(a <= b for a, b in pairwise(found.edges))


def test_it_says_how_much_work_is_before_a_tag() -> None:
    flows = [Flow(10.0 + n * 0.1, 0.3 + n % 3, 1 + n % 20, 1.0 + n % 2) for n in range(200)]
    found = build_histogram(11.0, flows)
    for tag in (11.0, 12.0, 15.0, 20.0, 30.0, 60.0):
        assert found.before(tag) == pytest.approx(exact_before(flows, tag), rel=0.1)


def test_a_flooder_does_not_blur_where_the_others_stand() -> None:
    flows = [Flow(100.0, 1.0, 100_000, 1.0), *(Flow(100.5 + n, 1.0, 1, 1.0) for n in range(5))]
    found = build_histogram(100.0, flows)
    assert found.before(100.0) == pytest.approx(1.0)
    for tag in (101.0, 103.0, 105.0, 200.0, 5_000.0):
        assert found.before(tag) == pytest.approx(exact_before(flows, tag), rel=0.1, abs=1.0)


def test_everything_at_the_virtual_time_is_before_a_newcomer() -> None:
    flows = [Flow(5.0, 1.0, 1, 3.0) for _ in range(10)]
    assert build_histogram(5.0, flows).before(5.0) == 30
    assert build_histogram(5.0, []).before(5.0) == 0
    assert build_histogram(5.0, [Flow(5.0, 0.0, 3, 1.0), Flow(6.0, 0.0, 2, 1.0)]).before(5.0) == 3


def test_arrivals_between_two_reports_count() -> None:
    found = build_histogram(5.0, [Flow(5.0, 1.0, 1, 3.0)])
    for number in range(2 * MOST_BINS):
        found.add(6.0 + number, 1.0)
    assert found.before(1e9) == 3 + 2 * MOST_BINS
    assert len(found.gpu_seconds) == MOST_BINS
    assert found.before(5.0) == 3
    fresh = Histogram()
    fresh.add(2.0, 1.0)
    assert (fresh.before(2.0), gpu_seconds_before(fresh.edges, fresh.gpu_seconds, 3.0)) == (1, 1)


def test_what_was_dispatched_since_the_report_is_no_longer_ahead() -> None:
    found = build_histogram(5.0, [Flow(5.0, 1.0, 10, 2.0)])
    before = found.before(9.0)
    found.take(3.0)
    assert found.before(9.0) == pytest.approx(before - 3.0)
    found.take(1e9)
    assert sum(found.gpu_seconds) == 0
    assert found.before(1e9) == 0
    for tag in (100.0, 6.0):
        found.add(tag, 1.0)
        found.take(0.25)
    assert found.before(6.0) <= 0.75
    assert found.before(1e9) == 1.5


def test_capacity_is_poured_by_weight_and_idle_lanes_leave_theirs() -> None:
    calibration = Calibration()
    calibration.look(0, 10, sights({}))
    assert calibration.figures("batch")["gpu_seconds_per_second"] == 10  # nobody else wants any
    calibration.look(1000, 10, sights({"interactive": 1, "standard": 1}))
    assert calibration.figures("interactive")["gpu_seconds_per_second"] == pytest.approx(10 * 70 / 95)
    assert calibration.figures("batch")["gpu_seconds_per_second"] == pytest.approx(10 * 5 / 100)


def test_a_lane_that_wants_less_than_its_share_leaves_the_rest() -> None:
    calibration = Calibration()
    for second in range(200):
        calibration.note_dispatch("interactive", 2.0)
        calibration.look(second * 1000, 10, sights({}))
    calibration.look(200_000, 10, sights({"standard": 1}))
    assert calibration.figures("standard")["gpu_seconds_per_second"] == pytest.approx(8.0, rel=0.05)


def test_the_rate_follows_what_a_backlog_was_really_given() -> None:
    calibration = Calibration()
    for second in range(300):
        calibration.look(second * 1000, 10, sights({"batch": 5}))
        calibration.note_dispatch("batch", 2.0)  # its pool has two slots of the ten
    assert calibration.figures("batch")["gpu_seconds_per_second"] == pytest.approx(2.0, rel=0.1)


def test_the_rate_follows_lost_slots_at_once() -> None:
    calibration = Calibration()
    for second in range(100):
        calibration.look(second * 1000, 10, sights({"standard": 5}))
        calibration.note_dispatch("standard", 9.0)
    calibration.look(100_000, 5, sights({"standard": 5}))
    assert calibration.figures("standard")["gpu_seconds_per_second"] == pytest.approx(4.5, rel=0.1)


def test_without_slots_nothing_is_expected() -> None:
    calibration = Calibration()
    assert calibration.note_arrival("standard", 0.0, 1.0) is None
    calibration.look(0, 0, sights({}))
    assert calibration.note_arrival("standard", 0.0, 1.0) is None
    calibration.note_start("standard", None, 3.0)
    calibration.note_end("standard", None, 3.0, 5.0)
    assert calibration.figures("standard")["rest_seconds"] == 2.0


def test_the_newest_scores_count() -> None:
    scores = Scores()
    for number in range(3 * WINDOW):
        scores.add(float(number))
    assert len(scores.values) == WINDOW
    assert min(scores.values) == 2 * WINDOW
    p50, p90 = scores.quantiles()
    assert p50 == pytest.approx(2.5 * WINDOW, abs=2)
    assert p90 == pytest.approx(2.92 * WINDOW, abs=2)
    assert 0 < Scores().quantiles()[0] < Scores().quantiles()[1]


def test_a_start_is_scored_against_what_was_expected() -> None:
    calibration = Calibration()
    expected = Expectation(wait_seconds=9.0, total_seconds=19.0, floor_seconds=1.0)
    calibration.note_start("standard", expected, 19.0)
    calibration.note_end("standard", expected, 19.0, 59.0)
    assert calibration.lanes["standard"].wait_scores.values == [2.0]
    assert calibration.lanes["standard"].total_scores.values == [3.0]


# (seconds, load as a share of capacity)
MIXED = [(200.0, 0.5), (200.0, 1.5), (200.0, 0.6), (200.0, 1.2), (400.0, 0.4)]


def kept(jobs: list[Job], name: Literal["total_p50", "total_p90"]) -> float:
    """The share of jobs that ended within the promised time of that name."""
    bounds = [job.promised.total_p50 if name == "total_p50" else job.promised.total_p90 for job in jobs if job.promised]
    return sum(job.total_seconds <= bound for job, bound in zip(jobs, bounds, strict=True)) / len(jobs)


@pytest.mark.parametrize(
    ("slots", "mean_seconds", "stretch", "seed"), [(8, 1.0, 1.0, 1), (2, 4.0, 2.0, 2), (32, 8.0, 1.0, 3)]
)
def test_most_jobs_finish_before_their_p90_while_load_changes(
    slots: int, mean_seconds: float, stretch: float, seed: int
) -> None:
    world = MixedLoad()
    world.join(0.0, range(slots))
    capacity = slots / (1.1 * mean_seconds)  # jobs a second
    phases = [(seconds * stretch, share * capacity) for seconds, share in MIXED]
    world.run(traffic(seed, phases, mean_seconds=mean_seconds), 1200 * stretch)
    judged = world.judged()
    assert len(judged) > 500
    assert all(job.ended is not None for job in world.jobs.values())
    assert 0.80 <= kept(judged, "total_p90") <= 0.97
    assert 0.35 <= kept(judged, "total_p50") <= 0.65
    promised = sum(job.promised.total_p90 for job in judged if job.promised is not None)
    assert promised < 5 * sum(job.total_seconds for job in judged)  # kept, and not by promising next to nothing
    for lane in LANES:
        assert kept([job for job in judged if job.lane == lane], "total_p90") >= 0.75


def test_most_jobs_finish_before_their_p90_while_slots_are_lost_and_come_back() -> None:
    world = MixedLoad()
    world.join(0.0, range(8))
    world.lose(300.0, range(5))
    world.join(500.0, range(5))
    world.run(traffic(4, [(700.0, 0.8 * 7.2), (100.0, 1.0)]), 900)
    assert 0.80 <= kept(world.judged(), "total_p90") <= 0.97


def test_the_load_level_follows_the_load() -> None:
    world = MixedLoad()
    world.join(0.0, range(2))
    world.run(traffic(1, [(100.0, 0.5), (200.0, 6.0), (10.0, 0.1)]), 800)
    assert world.levels[:90] == [0] * 90
    assert max(world.levels) >= 2
    assert world.levels[-1] == 0


def test_the_state_survives_a_snapshot() -> None:
    world = MixedLoad()
    world.join(0.0, range(4))
    world.run(traffic(1, [(30.0, 5.0)]), 60)
    state = world.scheduler.state.calibration
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=Calibration) == state
