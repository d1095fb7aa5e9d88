"""Histograms of work, rates of lanes, and bounds that most jobs keep while load and capacity change."""

from itertools import pairwise

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
from tests.unit.policy.queue_model import LANES, Model, traffic


def exact_before(flows: list[Flow], tag: float) -> float:
    return sum(
        flow.gpu_seconds for flow in flows for number in range(flow.tasks) if flow.start_tag + number * flow.step <= tag
    )


def sights(queued: dict[str, int]) -> dict[str, Sight]:
    return {lane: Sight(LANES[lane], queued.get(lane, 0), Histogram()) for lane in LANES}


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


# (phases of (seconds, load as a share of capacity), slots, mean seconds of a job)
MIXED = [(200.0, 0.5), (200.0, 1.5), (200.0, 0.6), (200.0, 1.2), (400.0, 0.4)]


@pytest.mark.parametrize(("slots", "mean_seconds", "stretch"), [(8, 1.0, 1.0), (2, 4.0, 4.0), (64, 10.0, 1.0)])
@pytest.mark.parametrize("seed", [1, 2])
def test_most_jobs_finish_before_their_p90_while_load_changes(
    slots: int, mean_seconds: float, stretch: float, seed: int
) -> None:
    model = Model(slots=slots)
    capacity = slots / (1.1 * mean_seconds)  # jobs a second
    phases = [(seconds * stretch, share * capacity) for seconds, share in MIXED]
    model.run(traffic(seed, phases, mean_seconds=mean_seconds), 4000)
    judged = [job for job in model.ended if job.total_p90 is not None]
    assert len(judged) > 500
    kept = sum(job.came + (job.total_p90 or 0) >= (job.ended or 0) for job in judged) / len(judged)
    assert 0.80 <= kept <= 0.97
    half = sum(job.came + (job.total_p50 or 0) >= (job.ended or 0) for job in judged) / len(judged)
    assert 0.40 <= half <= 0.60


def test_most_jobs_finish_before_their_p90_while_slots_are_lost_and_come_back() -> None:
    model = Model(slots=8)
    model.change_slots(300, 3)
    model.change_slots(600, 8)
    model.run(traffic(4, [(900, 0.8 * 7.2), (200, 1)]), 3000)
    judged = [job for job in model.ended if job.total_p90 is not None]
    kept = sum(job.came + (job.total_p90 or 0) >= (job.ended or 0) for job in judged) / len(judged)
    assert 0.80 <= kept <= 0.97


def test_the_state_survives_a_snapshot() -> None:
    model = Model(slots=4)
    model.run(traffic(1, [(30, 5)]), 60)
    state = model.calibration
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=Calibration) == state
