"""Places in the scheduler's queue, computed from control.load."""

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.load import LoadView
from schemas.codec import Record

UNCAPPED = {"places": 1_000, "seconds_each": 0.0}

users = st.builds(
    lambda start, step, queued: {"start_tag": start, "step": step, "queued_tasks": queued, "lane": "standard"},
    st.integers(0, 50),
    st.integers(1, 5),
    st.integers(1, 30),
)


def view(backlog: list[Record], at: int = 1_000) -> LoadView:
    found = LoadView(0)
    found.apply({"at": at, "backlog": backlog})
    return found


@settings(deadline=None)
@given(st.lists(users, min_size=1, max_size=6), st.integers(0, 10))
def test_the_place_is_the_rank_among_all_waiting_tags(backlog: list[Record], before: int) -> None:
    named = [{**entry, "user_id": str(n)} for n, entry in enumerate(backlog)]
    own = named[0]
    tag = own["start_tag"] + before * own["step"]
    tags = [b["start_tag"] + n * b["step"] for b in named[1:] for n in range(b["queued_tasks"])]
    assert view(named).queue_position("0", "standard", before) == 1 + before + sum(other < tag for other in tags)


def test_a_user_who_is_not_listed_has_no_place() -> None:
    assert LoadView(0).queue_position("ada", "standard", 0) is None
    assert view([]).queue_position("ada", "standard", 0) is None
    idle = {"user_id": "ada", "start_tag": 1.0, "step": 1.0, "queued_tasks": 0, "lane": "standard"}
    assert view([{**idle, "queued_tasks": 1, "lane": "batch"}]).queue_position("ada", "standard", 0) is None
    assert view([idle]).queue_position("ada", "standard", 0) is None


def test_odd_numbers_do_no_harm() -> None:
    odd = [
        {"user_id": "ada", "start_tag": float("inf"), "step": 1.0, "queued_tasks": 1, "lane": "standard"},
        {"user_id": "b", "start_tag": 0.0, "step": 0.0, "queued_tasks": 3, "lane": "standard"},
        {"user_id": "c", "start_tag": float("nan"), "step": 1.0, "queued_tasks": 3, "lane": "standard"},
    ]
    assert view(odd).queue_position("ada", "standard", 0) == 1


LANE = {
    "lane": "standard",
    "weight": 25.0,
    "virtual_time": 0.0,
    "queued_tasks": 10,
    "running_tasks": 1,
    "queued_gpu_seconds": 40.0,
    "oldest_age_seconds": 5.0,
    "gpu_seconds_per_second": 2.0,
    "tag_edges": [0.0, 0.0, 20.0],
    "tag_gpu_seconds": [0.0, 40.0],
    "rest_seconds": 4.0,
    "wait_ratio_p50": 1.0,
    "wait_ratio_p90": 1.5,
    "total_ratio_p50": 1.0,
    "total_ratio_p90": 1.5,
}
LOAD = {
    "domain": "main",
    "virtual_time": 0.0,
    "queued_tasks": 10,
    "running_tasks": 1,
    "live_slots": 1,
    "queued_gpu_seconds": 40.0,
    "backlog": [
        {**UNCAPPED, "user_id": "ada", "start_tag": 0.0, "step": 5.0, "queued_tasks": 3, "lane": "standard"},
        {**UNCAPPED, "user_id": "mallory", "start_tag": 0.0, "step": 5.0, "queued_tasks": 7, "lane": "standard"},
    ],
    "at": 1_000,
    "level": 0,
    "level_since": None,
    "predicted_wait_seconds": 20.0,
    "oldest_age_seconds": 5.0,
    "retry_after_seconds": 0.0,
    "capacity": 2,
    "lanes": [LANE, {**LANE, "lane": "batch"}],
    "refused_tiers": [],
    "refused_lanes": [],
    "policy_digest": "",
}


def loaded(**more: object) -> LoadView:
    found = LoadView(0)
    found.apply({**LOAD, **more})
    return found


def test_without_a_word_of_the_scheduler_nothing_is_said_or_refused() -> None:
    silent = LoadView(0)
    assert silent.predicted("ada", "standard", 0) is None
    assert silent.summary("ada", "pro", 0) is None
    assert silent.refused_for_seconds("free", "batch") is None
    assert silent.over_depth_seconds(0) is None


def test_later_jobs_of_a_user_have_longer_to_wait() -> None:
    first, second = (loaded().predicted("ada", "standard", n) for n in (0, 2))
    new = loaded().predicted_for_new("ada", "standard")
    assert first is not None
    assert second is not None
    assert new is not None
    assert first.p50 <= second.p50 <= new.p50 <= new.p90 <= new.total_p90
    assert new.p50 > 0
    assert loaded().predicted("ada", "unknown", 0) is None
    assert loaded(live_slots=0).predicted("ada", "standard", 0) is None


def test_the_level_refuses_tiers_and_lanes_and_others_go_on() -> None:
    view = loaded(level=3, refused_tiers=["free"], refused_lanes=["batch"], retry_after_seconds=17.2)
    assert view.refused_for_seconds("free", "interactive") == 17.2
    assert view.refused_for_seconds("enterprise", "batch") == 17.2
    assert view.refused_for_seconds("pro", "standard") is None
    assert loaded().refused_for_seconds("free", "batch") is None


def test_a_queue_that_is_too_deep_says_when_it_will_not_be() -> None:
    assert loaded().over_depth_seconds(10) is None
    assert loaded().over_depth_seconds(5) == 10.0  # half of 40 GPU-seconds on two places
    assert loaded(capacity=0).over_depth_seconds(0) == 40.0
    assert loaded(queued_tasks=0).over_depth_seconds(0) is None


def test_the_summary_says_what_the_level_does_and_names_no_user() -> None:
    view = loaded(level=3, level_since=500, refused_tiers=["free"], refused_lanes=["batch"], retry_after_seconds=17.2)
    found = view.summary("ada", "pro", 2_000)
    assert found is not None
    assert found["level_since"] == "1970-01-01T00:00:00.500Z"
    assert found["effects"][-1] == "submissions are refused: tier free, lane batch"
    assert len(found["effects"]) == 3
    assert found["retry_after_seconds"] == 18
    assert [(lane["lane"], lane["refused"]) for lane in found["lanes"]] == [("standard", False), ("batch", True)]
    assert "mallory" not in str(found)
    calm = loaded().summary("ada", "free", 2_000)
    assert calm is not None
    assert (calm["level"], calm["effects"]) == (0, [])


def test_its_age_counts_from_the_schedulers_last_word() -> None:
    found = LoadView(started_ms=10_000)
    assert not found.known()
    assert found.age_seconds(12_000) == 2.0
    found.apply({"at": 20_000, "backlog": []})
    found.apply({"at": 15_000, "backlog": []})  # an older record, read late
    assert found.known()
    assert found.age_seconds(23_500) == 3.5
    assert found.age_seconds(19_000) == 0.0
