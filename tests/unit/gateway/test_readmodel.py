"""The read model's file: the same rows whatever the order, offsets with them, users apart."""

import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.fold import StoredEvent, distinct, fold
from gateway.readmodel import ReadModel
from gateway.tables import Batch, FiledEvent, StoredJob
from schemas.jobs import JobState, Transition
from tests.unit.gateway.events import CODEC, JOB, filed, histories, record, refiled, whole_job

KEY = ("ada", JOB["job_id"])


def request(user_id: str = "ada", created_at: int = 1_000, **more: object) -> dict[str, object]:
    return {
        **JOB,
        "user_id": user_id,
        "created_at": created_at,
        "lane": None,
        "quality": "standard",
        "priority": 3,
        "retry_of": None,
        **more,
    }


@pytest.fixture
def model(tmp_path: Path) -> ReadModel:
    found = ReadModel(tmp_path / "model.sqlite3", CODEC)
    found.open("cluster")
    return found


def job(model: ReadModel) -> StoredJob:
    found = model.job(*KEY)  # type: ignore[arg-type]
    assert found is not None
    return found


@given(histories(), st.data())
@settings(max_examples=60, deadline=None)
def test_any_order_and_batching_gives_the_same_rows(
    tmp_path_factory: pytest.TempPathFactory, history: list[StoredEvent], data: st.DataObject
) -> None:
    repeated = history + data.draw(st.lists(st.sampled_from(history), max_size=4) if history else st.just([]))
    arrival = data.draw(st.permutations(repeated))
    when = data.draw(st.integers(0, len(arrival)))
    model = ReadModel(tmp_path_factory.mktemp("fold") / "model.sqlite3", CODEC)
    model.open("cluster")
    try:
        for index, event in enumerate(arrival):
            if index == when:
                model.apply(Batch(requests=[(request(), 0)]))
            model.apply(Batch(events=[refiled(event)]))
        if when == len(arrival):
            model.apply(Batch(requests=[(request(), 0)]))
        found = job(model)
        assert list(found.events) == distinct(history)
        assert found.row.state == fold(history).state.value
    finally:
        model.close()


def test_rows_and_offsets_are_there_again_after_a_start(model: ReadModel, tmp_path: Path) -> None:
    model.apply(Batch(requests=[(request(), 7)], offsets={("requests.text-to-3d", 1): 8}))
    model.apply(Batch(events=[refiled(e) for e in whole_job()], offsets={("jobs.events", 0): 10}))
    before = job(model)
    model.close()
    again = ReadModel(tmp_path / "model.sqlite3", CODEC)
    assert again.open("cluster") == {("requests.text-to-3d", 1): 8, ("jobs.events", 0): 10}
    assert job(again) == before
    again.close()


def test_a_batch_is_written_whole_or_not_at_all(model: ReadModel) -> None:
    bad = Batch(events=[refiled(whole_job()[0])], offsets={("jobs.events", 0): None})  # type: ignore[dict-item]
    with pytest.raises(sqlite3.IntegrityError):
        model.apply(bad)
    assert model.job(*KEY) is None  # type: ignore[arg-type]
    model.apply(Batch(events=[refiled(whole_job()[0])], offsets={("jobs.events", 0): 1}))
    assert job(model).row.state == "queued"
    model.close()


def test_another_clusters_file_and_a_damaged_one_are_replaced(model: ReadModel, tmp_path: Path) -> None:
    model.apply(Batch(events=[refiled(e) for e in whole_job()], offsets={("jobs.events", 0): 10}))
    model.close()
    other = ReadModel(tmp_path / "model.sqlite3", CODEC)
    assert other.open("another cluster") == {}
    assert other.job(*KEY) is None  # type: ignore[arg-type]
    other.close()
    (tmp_path / "model.sqlite3").write_bytes(b"\0" * 5_000)
    damaged = ReadModel(tmp_path / "model.sqlite3", CODEC)
    assert damaged.open("cluster") == {}
    damaged.close()


def test_users_do_not_see_each_other(model: ReadModel) -> None:
    model.apply(Batch(requests=[(request(), 0), (request("eve"), 1)], events=[refiled(e) for e in whole_job()]))
    assert job(model).row.state == "succeeded"
    foreign = model.job("eve", JOB["job_id"])  # type: ignore[arg-type]
    assert foreign is not None
    assert (foreign.row.state, foreign.events) == ("submitted", ())
    assert [stored.row.user_id for stored in model.jobs("ada", limit=10)] == ["ada"]
    assert model.job("mallory", JOB["job_id"]) is None  # type: ignore[arg-type]
    model.close()


def test_lists_are_newest_first_and_go_on_behind_a_job(model: ReadModel) -> None:
    made = [(request(created_at=1_000 + n // 2, job_id=f"job-{n}"), n) for n in range(6)]
    model.apply(Batch(requests=made))
    first = model.jobs("ada", limit=4)
    assert [stored.row.job_id for stored in first] == ["job-5", "job-4", "job-3", "job-2"]
    last = first[-1].row
    rest = model.jobs("ada", limit=4, before=(last.created_at, last.job_id))
    assert [stored.row.job_id for stored in rest] == ["job-1", "job-0"]
    assert model.jobs("ada", limit=4, state=JobState.QUEUED.value) == []
    model.close()


def queued(job_id: str, offset: int, *, user_id: str = "ada", lane: str = "standard", priority: int = 3) -> FiledEvent:
    """The event that makes a job queued."""
    named = {**JOB, "job_id": job_id, "user_id": user_id}
    return filed(record(Transition.QUEUED, offset, job=named, lane=lane, priority=priority), offset)


def place_of(model: ReadModel, job_id: str) -> int:
    found = model.job("ada", job_id, with_place=True)
    assert found is not None
    return found.queued_before


def test_a_users_queued_jobs_of_a_lane_are_counted_by_priority_and_age(model: ReadModel) -> None:
    events = [queued(f"job-{n}", n) for n in range(3)]
    events += [queued("urgent", 3, priority=1), queued("later", 4, priority=5)]
    events += [queued("other-lane", 5, lane="batch"), queued("foreign", 6, user_id="eve")]
    model.apply(Batch(events=events))
    order = ["urgent", "job-0", "job-1", "job-2", "later"]
    assert [place_of(model, job_id) for job_id in order] == [0, 1, 2, 3, 4]
    assert place_of(model, "other-lane") == 0
    model.apply(Batch(commands=[command("reprioritise", "job-2", priority=1)]))
    assert [place_of(model, job_id) for job_id in order] == [1, 2, 3, 0, 4]
    model.close()


def command(kind: str, job_id: str, *, user_id: str = "ada", priority: int | None = None) -> dict[str, object]:
    return {"kind": kind, "job_id": job_id, "user_id": user_id, "priority": priority}


def test_commands_are_shown_to_their_user(model: ReadModel) -> None:
    def controls(job_id: str) -> tuple[int | None, bool | None]:
        found = model.job("ada", job_id)
        assert found is not None
        return found.priority, found.paused

    model.apply(Batch(events=[queued("a", 0), queued("b", 1)]))
    assert controls("a") == (None, None)
    changed = model.apply(Batch(commands=[command("pause", "a"), command("reprioritise", "a", priority=2)]))
    assert changed == {("ada", "a"): False}
    assert controls("a") == (2, True)
    model.apply(Batch(commands=[command("pause", ""), command("cancel", "a")]))
    assert (controls("a"), controls("b")) == ((2, True), (None, True))
    model.apply(Batch(commands=[command("resume", ""), command("pause", "", user_id="eve")]))
    assert (controls("a"), controls("b")) == ((2, False), (None, False))
    assert [(s.row.job_id, s.priority, s.paused) for s in model.jobs("ada", limit=5)] == [
        ("b", None, False),
        ("a", 2, False),
    ]
    model.close()


def test_what_ended_long_ago_is_forgotten(model: ReadModel) -> None:
    ended = [refiled(event) for event in whole_job()]
    model.apply(Batch(events=[*ended, queued("waits", 20)], commands=[command("pause", str(JOB["job_id"]))]))
    at = ended_at(whole_job()[-1])
    assert model.prune(at, 10) == 0
    assert model.prune(at + 1, 10) == 1
    assert model.prune(at + 1, 10) == 0
    assert [stored.row.job_id for stored in model.jobs("ada", limit=5)] == ["waits"]
    # What comes late makes the job again, with what is known of it.
    model.apply(Batch(events=ended[-1:]))
    assert job(model).row.state == "succeeded"
    model.close()


def ended_at(event: StoredEvent) -> int:
    return event.at


def test_a_tail_that_cannot_be_read_is_passed_by(model: ReadModel) -> None:
    events = [refiled(event) for event in whole_job()]
    cut = events[3]._replace(value=events[3].value[:-9])
    model.apply(Batch(events=[*events[:3], cut, *events[4:]]))
    assert [event.offset for event in job(model).events] == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert job(model).row.state == "succeeded"
    model.close()
