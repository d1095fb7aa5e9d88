"""The job object, its cursor, and what a stream has still to send."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.fold import StoredEvent, fold
from gateway.jobs import Standing, assets, cursor_of, iso, job_json, parse_cursor
from gateway.problems import Problem
from gateway.services import accepted_fold
from gateway.sse import ended, parse_last_event_id, remaining, worth_telling
from gateway.tables import JobRow, StoredJob
from schemas.eta import Predicted
from schemas.jobs import Transition
from tests.unit.gateway.events import JOB, histories, stored, whole_job

ROW = JobRow(
    user_id="ada",
    job_id=str(JOB["job_id"]),
    workflow="text-to-3d",
    pipeline_id="assembly",
    created_at=1_000,
    state="queued",
    queued_at=None,
)


def test_a_submitted_job_shows_what_will_come() -> None:
    job = job_json(ROW, fold([]))
    assert (job["state"], job["stage"], job["progress"], job["created_at"]) == (
        "submitted",
        None,
        0.0,
        "1970-01-01T00:00:01.000Z",
    )
    assert [(s["name"], s["state"]) for s in job["stages"]] == [
        ("generate", "pending"),
        ("retopology", "pending"),
        ("texture", "pending"),
    ]
    assert job["urls"]["cancel"] == f"/v1/jobs/{ROW.job_id}/cancel"
    assert job["assets"] == []


@settings(deadline=None)
@given(histories())
def test_progress_never_leaves_its_range(history: list[StoredEvent]) -> None:
    for percent in (-5.0, 50.0, 1e9):
        job = job_json(ROW, fold(history), Standing(progress={"percent": percent, "message": "x"}))
        assert 0 <= job["progress"] <= 100


def test_finished_shares_outweigh_a_stages_own_word() -> None:
    between = fold(whole_job()[:5])
    assert job_json(ROW, between, Standing(progress={"percent": 12.0, "message": ""}))["progress"] == 40.0
    assert job_json(ROW, between, Standing(progress={"percent": 44.4, "message": "x"}))["progress"] == 44.4


def test_a_stage_that_ran_when_the_job_ended_ended_with_it() -> None:
    canceled = fold([*whole_job()[:4], stored(Transition.CANCELED, 4)])
    assert [s["state"] for s in job_json(ROW, canceled)["stages"]] == ["canceled", "pending", "pending"]


def test_only_failures_have_errors_and_only_queued_jobs_a_place() -> None:
    assert job_json(ROW, fold(whole_job()), Standing(queue_position=3))["error"] is None
    assert job_json(ROW, fold(whole_job()), Standing(queue_position=3))["queue_position"] is None
    assert job_json(ROW, fold(whole_job()[:1]), Standing(queue_position=3))["queue_position"] == 3
    failed = fold([*whole_job()[:2], stored(Transition.FAILED, 2)])
    assert job_json(ROW, failed)["error"] == {"class": "transient", "message": None}


def test_a_pipeline_that_this_release_does_not_know_is_shown_by_its_events() -> None:
    job = job_json(replace(ROW, pipeline_id="newer"), fold(whole_job()))
    assert [s["name"] for s in job["stages"]] == ["generate", "retopology", "texture"]
    assert list(assets(fold(whole_job()), "newer")) == ["generate/mesh", "retopology/mesh", "texture/mesh"]


def test_times_that_no_calendar_has_are_left_out() -> None:
    assert iso(None) is None
    assert iso(2**62) is None
    assert iso(-(2**62)) is None
    assert iso(1_700_000_000_123) == "2023-11-14T22:13:20.123Z"


def test_cursors_come_back() -> None:
    assert parse_cursor(cursor_of(ROW)) == (1_000, ROW.job_id)
    for bad in ("", "!", "x", "e30", "=" * 10, "é", cursor_of(ROW)[3:]):
        with pytest.raises(Problem) as caught:
            parse_cursor(bad)
        assert caught.value.field == "cursor"


def test_last_event_ids() -> None:
    assert parse_last_event_id(None) is None
    assert parse_last_event_id("") is None
    assert parse_last_event_id("3-17") == (3, 17)
    for bad in ("3", "-1-2", "3-", "a-b", "3-17-1", "\u0663-\u0661"):
        with pytest.raises(Problem):
            parse_last_event_id(bad)


def test_a_stream_stops_at_the_first_final_event() -> None:
    late = [*whole_job(), stored(Transition.STAGE_LOST, 10, stage_index=0, attempt=1)]
    sent = remaining(StoredJob(row=ROW, events=tuple(late)), None)
    assert [event.transition for event, _ in sent][-1] == "succeeded"
    assert ended(StoredJob(row=ROW, events=tuple(late)), (0, 9))
    assert not ended(StoredJob(row=ROW, events=tuple(late)), (0, 8))
    assert not ended(StoredJob(row=ROW, events=tuple(late[:9])), (0, 8))


@settings(deadline=None)
@given(histories(), st.data())
def test_wherever_a_stream_breaks_nothing_is_missed_or_told_twice(
    history: list[StoredEvent], data: st.DataObject
) -> None:
    whole = remaining(StoredJob(row=ROW, events=tuple(history)), None)
    last: tuple[int, int] | None = None
    pieced = []
    for known in sorted([*data.draw(st.lists(st.integers(0, len(history)), max_size=4)), len(history)]):
        for event, job in remaining(StoredJob(row=ROW, events=tuple(history[:known])), last):
            pieced.append((event, job))
            last = (event.partition, event.offset)
    assert pieced == whole


ETA = Predicted(wait_seconds=40.0, p50=40.0, p90=60.0, total_p50=50.0, total_p90=75.0)


def test_times_to_expect_are_shown_while_a_job_is_queued() -> None:
    queued = job_json(ROW, fold(whole_job()[:1]), Standing(eta=ETA, now_ms=1_000))
    assert queued["eta"] == {
        "wait_seconds": {"p50": 40.0, "p90": 60.0},
        "total_seconds": {"p50": 50.0, "p90": 75.0},
        "start_at": {"p50": "1970-01-01T00:00:41.000Z", "p90": "1970-01-01T00:01:01.000Z"},
        "finish_at": {"p50": "1970-01-01T00:00:51.000Z", "p90": "1970-01-01T00:01:16.000Z"},
    }
    assert job_json(ROW, fold(whole_job()[:2]), Standing(eta=ETA, now_ms=1_000))["eta"] is None


def test_commands_outweigh_what_events_say_of_priority_and_an_ended_job_is_not_paused() -> None:
    commanded = Standing(priority=1, paused=True)
    waiting = job_json(replace(ROW, priority=4), fold(whole_job()[:1]), commanded)
    assert (waiting["priority"], waiting["paused"]) == (1, True)
    assert job_json(replace(ROW, priority=4), fold(whole_job()[:1]))["priority"] == 4
    assert job_json(ROW, fold(whole_job()), commanded)["paused"] is False


def test_a_held_job_says_when_it_is_released() -> None:
    job = job_json(ROW, accepted_fold(9_000))
    assert (job["state"], job["held_until"]) == ("held", "1970-01-01T00:00:09.000Z")
    assert job_json(ROW, accepted_fold(None))["state"] == "queued"


def test_a_prediction_that_comes_true_is_no_news() -> None:
    told = Standing(queue_position=5, eta=ETA, now_ms=0)
    later = ETA._replace(p50=30.5, p90=50.5)
    assert not worth_telling(Standing(), None)
    assert worth_telling(told, None)
    assert worth_telling(Standing(paused=True), None)
    assert not worth_telling(replace(told, eta=later, now_ms=10_000), told)
    assert worth_telling(replace(told, eta=ETA, now_ms=10_000), told)
    assert worth_telling(replace(told, queue_position=4), told)
    assert worth_telling(replace(told, eta=None), told)
    assert worth_telling(replace(told, eta=later._replace(p90=70.0), now_ms=10_000), told)
