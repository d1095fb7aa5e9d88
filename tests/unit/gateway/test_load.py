"""Places in the scheduler's queue, computed from control.load."""

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.load import LoadView
from schemas.codec import Record

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


def test_its_age_counts_from_the_schedulers_last_word() -> None:
    found = LoadView(started_ms=10_000)
    assert not found.known()
    assert found.age_seconds(12_000) == 2.0
    found.apply({"at": 20_000, "backlog": []})
    found.apply({"at": 15_000, "backlog": []})  # an older record, read late
    assert found.known()
    assert found.age_seconds(23_500) == 3.5
    assert found.age_seconds(19_000) == 0.0
