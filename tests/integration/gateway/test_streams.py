"""Server-sent events of jobs that run."""

import httpx

from schemas.jobs import Transition
from tests.integration.gateway.counterpart import Counterpart
from tests.integration.gateway.process import frames
from tests.integration.gateway.test_jobs import make


def test_a_stream_tells_each_transition_and_progress_and_ends(client: httpx.Client, counterpart: Counterpart) -> None:
    job_id = make(client)
    seen = []
    with frames(client, job_id) as stream:
        first = next(stream)
        assert (first.event, first.data["state"], first.data["id"]) == ("job.queued", "queued", job_id)
        counterpart.event(job_id, Transition.STARTED, stage="generate", attempt=1)
        assert next(stream).event == "job.started"
        counterpart.progress(job_id, "generate", 20.0)
        progress = next(stream)
        assert (progress.event, progress.event_id, progress.data["progress"]) == ("job.progress", None, 20.0)
        counterpart.run_job(job_id)
        seen = [frame.event for frame in stream if frame.event != "job.progress"]
    # run_job repeats the first start; the stream does not.
    assert seen == [
        "job.stage_succeeded",
        "job.started",
        "job.stage_succeeded",
        "job.started",
        "job.stage_succeeded",
        "job.succeeded",
    ]


def test_a_frame_holds_the_job_as_it_was_then(client: httpx.Client, counterpart: Counterpart) -> None:
    job_id = make(client)
    with frames(client, job_id) as stream:
        live = [next(stream)]
        counterpart.run_job(job_id)
        live += [frame for frame in stream if frame.event_id is not None]
    with frames(client, job_id) as stream:
        again = list(stream)
    assert live == again
    assert [frame.data["progress"] for frame in again] == [0.0, 0.0, 40.0, 40.0, 50.0, 50.0, 100.0, 100.0]
    assert [frame.data["state"] for frame in again] == ["queued", *["running"] * 6, "succeeded"]


def test_a_rejected_job_ends_its_stream(client: httpx.Client) -> None:
    assert (
        client.post(
            "/v1/jobs",
            json={"workflow": "text-to-3d", "prompt": "a stool", "parameters": {"answer": "invalid_request"}},
            headers={"idempotency-key": "refused-1"},
        ).status_code
        == 422
    )
    (job,) = client.get("/v1/jobs").json()["jobs"]
    with frames(client, job["id"]) as stream:
        assert [frame.event for frame in stream] == ["job.rejected"]
    assert client.get(f"/v1/jobs/{job['id']}").json()["error"] == {
        "class": "invalid_request",
        "message": "refused",
    }


def test_a_head_request_does_not_wait_for_the_end(client: httpx.Client) -> None:
    answer = client.head(f"/v1/jobs/{make(client)}/events")
    assert (answer.status_code, answer.content) == (200, b"")


def test_a_last_event_id_of_nobody_is_refused(client: httpx.Client) -> None:
    job_id = make(client)
    for garbage in ("x", "1", "1-", "-1-5", "1-2-3", "9" * 40, "1-" + "9" * 30, "../1"):
        answer = client.get(f"/v1/jobs/{job_id}/events", headers={"last-event-id": garbage})
        assert (answer.status_code, answer.json()["field"]) == (400, "Last-Event-ID")
