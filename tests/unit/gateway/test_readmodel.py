"""The read model's file: the same rows whatever the order, offsets with them, users apart."""

import sqlite3
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.fold import StoredEvent, distinct, fold
from gateway.readmodel import Batch, ReadModel, StoredJob
from schemas.jobs import JobState
from tests.unit.gateway.events import JOB, histories, whole_job

KEY = ("ada", JOB["job_id"])


def request(user_id: str = "ada", created_at: int = 1_000, **more: object) -> dict[str, object]:
    return {**JOB, "user_id": user_id, "created_at": created_at, **more}


@pytest.fixture
def model(tmp_path: Path) -> ReadModel:
    found = ReadModel(tmp_path / "model.sqlite3")
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
    model = ReadModel(tmp_path_factory.mktemp("fold") / "model.sqlite3")
    model.open("cluster")
    try:
        for index, event in enumerate(arrival):
            if index == when:
                model.apply(Batch(requests=[(request(), 0)]))
            model.apply(Batch(events=[event]))
        if when == len(arrival):
            model.apply(Batch(requests=[(request(), 0)]))
        found = job(model)
        assert list(found.events) == distinct(history)
        assert found.row.state == fold(history).state.value
    finally:
        model.close()


def test_rows_and_offsets_are_there_again_after_a_start(model: ReadModel, tmp_path: Path) -> None:
    model.apply(Batch(requests=[(request(), 7)], offsets={("requests.text-to-3d", 1): 8}))
    model.apply(Batch(events=whole_job(), offsets={("jobs.events", 0): 10}))
    before = job(model)
    model.close()
    again = ReadModel(tmp_path / "model.sqlite3")
    assert again.open("cluster") == {("requests.text-to-3d", 1): 8, ("jobs.events", 0): 10}
    assert job(again) == before
    again.close()


def test_a_batch_is_written_whole_or_not_at_all(model: ReadModel) -> None:
    bad = Batch(events=whole_job()[:1], offsets={("jobs.events", 0): None})  # type: ignore[dict-item]
    with pytest.raises(sqlite3.IntegrityError):
        model.apply(bad)
    assert model.job(*KEY) is None  # type: ignore[arg-type]
    model.apply(Batch(events=whole_job()[:1], offsets={("jobs.events", 0): 1}))
    assert job(model).row.state == "queued"
    model.close()


def test_another_clusters_file_and_a_damaged_one_are_replaced(model: ReadModel, tmp_path: Path) -> None:
    model.apply(Batch(events=whole_job(), offsets={("jobs.events", 0): 10}))
    model.close()
    other = ReadModel(tmp_path / "model.sqlite3")
    assert other.open("another cluster") == {}
    assert other.job(*KEY) is None  # type: ignore[arg-type]
    other.close()
    (tmp_path / "model.sqlite3").write_bytes(b"\0" * 5_000)
    damaged = ReadModel(tmp_path / "model.sqlite3")
    assert damaged.open("cluster") == {}
    damaged.close()


def test_users_do_not_see_each_other(model: ReadModel) -> None:
    model.apply(Batch(requests=[(request(), 0), (request("eve"), 1)], events=whole_job()))
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


def test_a_users_queued_jobs_are_counted_in_their_order(model: ReadModel) -> None:
    first = whole_job()[0]
    later = [msgspec.structs.replace(first, job_id=f"job-{n}", at=first.at + n) for n in (1, 2)]
    foreign = msgspec.structs.replace(first, user_id="eve")
    model.apply(Batch(events=[*later, first, foreign]))
    for n, job_id in enumerate([first.job_id, "job-1", "job-2"]):
        found = model.job("ada", job_id, with_place=True)
        assert found is not None
        assert found.queued_before == n
    model.close()
