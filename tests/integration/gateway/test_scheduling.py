"""Lanes, holds, limits, load levels, commands and times to expect over HTTP, with Kafka behind it."""

import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from schemas.codec import Record
from schemas.jobs import Transition
from schemas.topics import COMMANDS
from tests.integration.gateway.conftest import known_client
from tests.integration.gateway.counterpart import Counterpart, now_ms
from tests.integration.gateway.process import GatewayProcess, frames, wait_for
from tests.integration.gateway.test_jobs import ARMCHAIR, make, state_of
from tests.support.kafka import read_topic

LANE: Record = {
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


@pytest.fixture
def load(counterpart: Counterpart, client: httpx.Client) -> Iterator[Record]:
    """What control.load says for the time of a test; the service has been busy, and is calm again afterwards."""
    counterpart.load = {
        "queued_tasks": 10,
        "queued_gpu_seconds": 40.0,
        "capacity": 2,
        "lanes": [LANE, {**LANE, "lane": "batch"}],
    }
    yield counterpart.load
    counterpart.load, counterpart.backlog = {}, []
    wait_for(lambda: client.get("/v1/load").json()["queued_tasks"] == 0, "calm")


def problem(answer: httpx.Response) -> tuple[int, str, str | None]:
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, answer.json()["code"], answer.json().get("limit")


def commands_of(counterpart: Counterpart, bootstrap: str, user_id: str) -> list[tuple[str, str, int | None]]:
    found = []
    for message in read_topic(bootstrap, COMMANDS):
        if message.key() == user_id.encode():
            record = counterpart.codec.decode(message.value(), "command")
            found.append((record["kind"], record["job_id"], record["priority"]))
    return found


def test_every_wish_reaches_admission(client: httpx.Client, counterpart: Counterpart) -> None:
    wishes = {
        "lane": "batch",
        "priority": 2,
        "texture_size": 2048,
        "on_limit": "wait",
        "start_within_seconds": 60,
        "finish_within_seconds": 600.5,
        "max_queue_depth": 5_000,
    }
    job_id = make(client, **wishes, run_at="2020-01-01T00:00:00Z", debounce={"key": "sofa", "seconds": 3})
    record = counterpart.requests[job_id]
    assert {name: record[name] for name in wishes} == wishes
    assert (record["run_at"], record["debounce_key"], record["debounce_seconds"]) == (1_577_836_800_000, "sofa", 3.0)
    key = client.headers["authorization"].removeprefix("Bearer ")
    assert (record["key_id"], record["retry_of"], record["resume"]) == (key.split("_")[1], None, None)
    job = wait_for(lambda: known(client, job_id), "the job")
    assert (job["lane"], job["priority"], job["tier"]) == ("batch", 2, "pro")


def known(client: httpx.Client, job_id: str) -> dict[str, Any] | None:
    job: dict[str, Any] = client.get(f"/v1/jobs/{job_id}").json()
    return job if job["tier"] is not None else None


def test_a_held_job_says_so_at_once_and_goes_on_when_released(client: httpx.Client, counterpart: Counterpart) -> None:
    due = now_ms() + 3_600_000
    answer = client.post("/v1/jobs", json={**ARMCHAIR, "parameters": {"answer": "held", "due_ms": str(due)}})
    assert (answer.status_code, answer.json()["state"]) == (202, "held")
    job_id, until = answer.json()["id"], answer.json()["held_until"]
    assert until is not None
    wait_for(lambda: known(client, job_id), "the event")
    assert client.get(f"/v1/jobs/{job_id}").json()["held_until"] == until
    assert [job["id"] for job in client.get("/v1/jobs?state=held").json()["jobs"]] == [job_id]
    with frames(client, job_id) as stream:
        assert next(stream).event == "job.held"
        counterpart.event(job_id, Transition.QUEUED)
        assert (next(f for f in stream if f.event_id)).data["state"] == "queued"
        counterpart.event(job_id, Transition.ABORTED, error_class="start_deadline", error_message="too late")
        assert [f.event for f in stream if f.event_id] == ["job.aborted"]
    job = client.get(f"/v1/jobs/{job_id}").json()
    assert (job["state"], job["error"]) == ("aborted", {"class": "start_deadline", "message": "too late"})
    assert client.post(f"/v1/jobs/{job_id}/cancel").json() == {"status": "already_aborted"}


@pytest.mark.parametrize(
    ("limit", "code", "retry_after"),
    [
        ("requests", "rate_limit", "2"),
        ("key_requests", "rate_limit", "2"),
        ("backlog", "backlog_limit", "5"),
        ("queue_depth", "queue_depth", "2"),
    ],
)
def test_a_refusal_names_its_limit(client: httpx.Client, limit: str, code: str, retry_after: str) -> None:
    answer = client.post("/v1/jobs", json={**ARMCHAIR, "parameters": {"answer": limit}})
    assert problem(answer) == (429, code, limit)
    assert answer.headers["retry-after"] == retry_after
    assert "ratelimit" in answer.headers


def test_admission_may_refuse_by_the_load_too(client: httpx.Client) -> None:
    answer = client.post("/v1/jobs", json={**ARMCHAIR, "parameters": {"answer": "load"}})
    assert problem(answer) == (503, "overloaded", "load")
    assert answer.headers["retry-after"] == "2"


def test_too_deep_a_queue_is_refused_at_once(client: httpx.Client, load: Record) -> None:
    wait_for(lambda: client.get("/v1/load").json()["queued_tasks"] == 10, "the load")
    answer = client.post("/v1/jobs", json={**ARMCHAIR, "max_queue_depth": 5})
    assert problem(answer) == (429, "queue_depth", "queue_depth")
    assert answer.headers["retry-after"] == "10"  # half of 40 GPU-seconds on two places
    make(client, max_queue_depth=10)


def test_at_the_highest_level_some_are_refused_and_paid_ones_go_on(
    client: httpx.Client, gateway: GatewayProcess, counterpart: Counterpart, load: Record
) -> None:
    with known_client(gateway, counterpart.tenant(f"free-{uuid.uuid4().hex[:8]}", tier="free")) as free:
        headers = {"idempotency-key": "before"}
        first = free.post("/v1/jobs", json=ARMCHAIR, headers=headers).json()["id"]
        wait_for(lambda: known(free, first), "the first job")
        load.update(level=3, refused_tiers=["free"], refused_lanes=["batch"], retry_after_seconds=41.5)
        wait_for(lambda: free.get("/v1/load").json()["level"] == 3, "the level")
        refused = free.post("/v1/jobs", json=ARMCHAIR, headers={"idempotency-key": "another"})
        assert problem(refused) == (503, "overloaded", "load")
        assert refused.headers["retry-after"] == "42"
        assert refused.json()["retryable"] is True
        # Who repeats a request that was accepted is not sent away.
        again = free.post("/v1/jobs", json=ARMCHAIR, headers=headers)
        assert (again.status_code, again.json()["id"]) == (202, first)
        assert free.get("/v1/jobs").json()["jobs"][0]["id"] == first
    make(client)
    assert problem(client.post("/v1/jobs", json={**ARMCHAIR, "lane": "batch"})) == (503, "overloaded", "load")
    told = client.get("/v1/load").json()
    assert [(lane["lane"], lane["refused"]) for lane in told["lanes"]] == [("standard", False), ("batch", True)]
    assert told["effects"][-1] == "submissions are refused: tier free, lane batch"


def test_changes_go_to_the_commands_topic_and_are_shown(
    client: httpx.Client, counterpart: Counterpart, kafka_bootstrap: str, user_id: str
) -> None:
    job_id, other = make(client), make(client)
    answer = client.patch(f"/v1/jobs/{job_id}", json={"priority": 1, "paused": True})
    assert (answer.status_code, answer.json()) == (202, {"status": "change_requested"})
    wait_for(lambda: client.get(f"/v1/jobs/{job_id}").json()["paused"], "the pause")
    assert client.get(f"/v1/jobs/{job_id}").json()["priority"] == 1
    assert client.get(f"/v1/jobs/{other}").json()["priority"] == 3
    wait_for(lambda: client.get("/v1/jobs?state=queued&limit=2").json()["jobs"][1:], "both jobs")
    for action, paused in (("pause", True), ("resume", False)):
        assert client.post(f"/v1/jobs/{action}").json() == {"status": "change_requested"}
        wait_for(lambda paused=paused: client.get(f"/v1/jobs/{other}").json()["paused"] is paused, action)  # type: ignore[misc]
        assert client.get(f"/v1/jobs/{job_id}").json()["paused"] is paused
    assert commands_of(counterpart, kafka_bootstrap, user_id) == [
        ("reprioritise", job_id, 1),
        ("pause", job_id, None),
        ("pause", "", None),
        ("resume", "", None),
    ]
    counterpart.event(job_id, Transition.CANCELED)
    wait_for(lambda: state_of(client, job_id) == "canceled", "the end")
    late = client.patch(f"/v1/jobs/{job_id}", json={"priority": 5})
    assert problem(late) == (409, "job_ended", None)


def test_a_command_that_no_gateway_has_signed_is_not_shown(
    client: httpx.Client, counterpart: Counterpart, user_id: str
) -> None:
    job_id = make(client)
    counterpart.command(user_id, job_id, "pause")
    assert client.patch(f"/v1/jobs/{job_id}", json={"priority": 2}).status_code == 202
    wait_for(lambda: client.get(f"/v1/jobs/{job_id}").json()["priority"] == 2, "the later command")
    assert client.get(f"/v1/jobs/{job_id}").json()["paused"] is False


@pytest.mark.parametrize("body", [{}, {"priority": 0}, {"paused": "yes"}, {"priority": 1, "state": "succeeded"}, []])
def test_bad_changes_are_refused(client: httpx.Client, body: object) -> None:
    answer = client.patch(f"/v1/jobs/{make(client)}", json=body)
    assert problem(answer) == (422, "invalid_request", None)


def test_a_queued_job_says_when_it_will_start_and_end(
    client: httpx.Client, counterpart: Counterpart, load: Record, user_id: str
) -> None:
    counterpart.backlog = [
        {"user_id": user_id, "start_tag": 10.0, "step": 4.0, "queued_tasks": 1, "lane": "standard"},
        {"user_id": "other", "start_tag": 0.0, "step": 1.0, "queued_tasks": 9, "lane": "standard"},
    ]
    assert load["lanes"]
    job_id = make(client)
    job = wait_for(lambda: with_eta(client, job_id), "times to expect")
    assert job["queue_position"] == 10
    # 20 GPU-seconds have smaller tags, its own cost of 4 aside: 8 s at 2 GPU-seconds a second.
    assert job["eta"]["wait_seconds"]["p50"] == 8.0
    assert job["eta"]["wait_seconds"]["p90"] > 8.0
    assert job["eta"]["total_seconds"]["p50"] == 12.0
    assert job["created_at"] < job["eta"]["start_at"]["p50"] < job["eta"]["finish_at"]["p90"]
    with frames(client, job_id) as stream:
        assert next(stream).event == "job.queued"
        waiting = next(stream)
        assert (waiting.event, waiting.event_id) == ("job.waiting", None)
        assert waiting.data["queue_position"] == 10
        counterpart.backlog[1]["queued_tasks"] = 2
        assert next(stream).data["queue_position"] == 3
        counterpart.event(job_id, Transition.STARTED, stage="generate", attempt=1)
        started = next(frame for frame in stream if frame.event_id)
        assert (started.event, started.data["eta"]) == ("job.started", None)
    lanes = {lane["lane"]: lane["eta"] for lane in client.get("/v1/load").json()["lanes"]}
    assert lanes["standard"]["wait_seconds"]["p50"] > 0


def with_eta(client: httpx.Client, job_id: str) -> dict[str, Any] | None:
    job: dict[str, Any] = client.get(f"/v1/jobs/{job_id}").json()
    return job if job["eta"] is not None and job["queue_position"] is not None else None


def test_the_load_names_nobody(client: httpx.Client, counterpart: Counterpart, load: Record) -> None:
    counterpart.backlog = [
        {"user_id": "secret-user", "start_tag": 0.0, "step": 1.0, "queued_tasks": 9, "lane": "standard"}
    ]
    assert load["lanes"]
    wait_for(lambda: client.get("/v1/load").json()["queued_tasks"] == 10, "the load")
    assert "secret" not in client.get("/v1/load").text
