"""Predictions from a load report: work before a tag, bounds by ratios, what is unknown."""

from itertools import pairwise
from typing import Any

import pytest

from schemas.eta import Predicted, bound, floor_seconds, gpu_seconds_before, predict, predict_for, start_tag


def lane(**changes: Any) -> dict[str, Any]:
    return {
        "lane": "standard",
        "weight": 25.0,
        "virtual_time": 10.0,
        "queued_tasks": 4,
        "running_tasks": 2,
        "queued_gpu_seconds": 40.0,
        "oldest_age_seconds": 3.0,
        "gpu_seconds_per_second": 2.0,
        "tag_edges": [8.0, 10.0, 20.0, 30.0],
        "tag_gpu_seconds": [10.0, 20.0, 10.0],
        "rest_seconds": 6.0,
        "wait_ratio_p50": 1.0,
        "wait_ratio_p90": 2.0,
        "total_ratio_p50": 1.0,
        "total_ratio_p90": 1.5,
        **changes,
    }


def load(**changes: Any) -> dict[str, Any]:
    row = {"user_id": "a", "lane": "standard", "start_tag": 12.0, "step": 2.5, "queued_tasks": 4}
    backlog = [{**row, "places": 2, "seconds_each": 30.0}]
    return {"live_slots": 2, "capacity": 2, "backlog": backlog, "lanes": [lane()], **changes}


@pytest.mark.parametrize(
    ("tag", "work"), [(0.0, 10.0), (10.0, 10.0), (15.0, 20.0), (20.0, 30.0), (25.0, 35.0), (30.0, 40.0), (99.0, 40.0)]
)
def test_work_before_a_tag(tag: float, work: float) -> None:
    assert gpu_seconds_before(lane()["tag_edges"], lane()["tag_gpu_seconds"], tag) == work


def test_an_empty_queue_has_no_work() -> None:
    assert gpu_seconds_before([], [], 3.0) == 0
    assert gpu_seconds_before([10.0, 10.0], [5.0], 10.0) == 5


def test_the_wait_is_work_over_rate_and_the_bounds_follow_the_ratios() -> None:
    found = predict(load(), "standard", 20.0)
    floor = 1 + 6.0 / 2
    assert found == Predicted(
        wait_seconds=15.0,
        p50=15.0,
        p90=2 * (15 + floor) - floor,
        total_p50=21.0,
        total_p90=max(2 * (15 + floor) - floor, 1.5 * (21 + floor) - floor),
    )


def test_what_waits_already_is_not_before_itself() -> None:
    found = predict(load(), "standard", 20.0, queued=True)
    assert found is not None
    assert found.wait_seconds == (30 - 10) / 2
    first = predict(load(lanes=[lane(tag_gpu_seconds=[5.0, 20.0, 10.0])]), "standard", 10.0, queued=True)
    assert first is not None
    assert first.wait_seconds == 0


def test_the_own_cap_is_a_least_wait() -> None:
    found = predict(load(), "standard", 20.0, least_wait_seconds=100.0)
    assert found is not None
    assert found.wait_seconds == 100


def test_a_user_beyond_the_cap_waits_for_own_jobs() -> None:
    waits = []
    for before in range(4):
        found = predict_for(load(), "standard", "a", jobs_before=before)
        assert found is not None
        waits.append(found.wait_seconds)
    by_tag = [predict(load(), "standard", 12.0 + before * 2.5) for before in range(2)]
    assert waits[:2] == [found.wait_seconds for found in by_tag if found is not None]
    assert waits[2:] == [30.0, 60.0]
    assert predict_for(load(), "standard", "unlisted", jobs_before=9) == predict(load(), "standard", 10.0)


def test_bounds_never_cross_and_grow_with_the_tag() -> None:
    odd = lane(wait_ratio_p50=3.0, wait_ratio_p90=1.0, total_ratio_p50=0.1, total_ratio_p90=0.1)
    tags = [float(tag) for tag in range(40)]
    for lanes in ([lane()], [odd]):
        rows = [predict(load(lanes=lanes), "standard", tag) for tag in tags]
        for row in rows:
            assert row is not None
            assert 0 <= row.p50 <= row.p90 <= row.total_p90
            assert row.p50 <= row.total_p50 <= row.total_p90
        for before, after in pairwise(rows):
            assert before is not None
            assert after is not None
            assert before.p90 <= after.p90


@pytest.mark.parametrize("changes", [{"live_slots": 0}, {"lanes": []}, {"lanes": [lane(gpu_seconds_per_second=0.0)]}])
def test_nothing_is_promised_when_nothing_is_known(changes: dict[str, Any]) -> None:
    assert predict(load(**changes), "standard", 20.0) is None


def test_start_tags_of_listed_and_unlisted_users() -> None:
    assert start_tag(load(), "standard", "a") == 12
    assert start_tag(load(), "standard", "a", 2) == 17
    assert start_tag(load(), "standard", "b", 2) == 10
    assert start_tag(load(), "batch", "a") == 0


def test_a_bound_is_never_negative_and_the_floor_tames_tiny_predictions() -> None:
    assert bound(0.0, 1.0, 0.1) == 0
    assert bound(0.0, 1.0, 3.0) == 2
    assert floor_seconds(0.0, 0) == 1
    assert floor_seconds(10.0, 4) == 3.5
