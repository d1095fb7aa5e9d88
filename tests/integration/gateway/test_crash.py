"""kill -9 of the gateway, a lost file, a stopped admission: what was accepted stays, what cannot be is refused."""

import concurrent.futures
import time
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.services import READ_MODEL_FILE
from schemas.codec import Record
from schemas.events import job_event
from schemas.jobs import Transition
from tests.integration.gateway.conftest import known_client
from tests.integration.gateway.counterpart import Counterpart, now_ms
from tests.integration.gateway.process import GatewayProcess, frames, wait_for
from tests.integration.gateway.test_jobs import make, state_of


@pytest.fixture
def own_gateway(kafka_bootstrap: str, counterpart: Counterpart, tmp_path: Path) -> GatewayProcess:
    """A gateway that a test may kill."""
    return GatewayProcess(kafka_bootstrap, counterpart.settings.domain, tmp_path / "own")


def run_all(counterpart: Counterpart, jobs: list[str]) -> None:
    for job in jobs:
        counterpart.run_job(job)


def objects_of(client: httpx.Client, jobs: list[str]) -> list[dict[str, object]]:
    found = [client.get(f"/v1/jobs/{job}").json() for job in jobs]
    for job in found:
        del job["queue_position"]
    return found


def test_kill_9_loses_and_doubles_nothing(own_gateway: GatewayProcess, counterpart: Counterpart, user_id: str) -> None:
    key = counterpart.tenant(user_id)
    own_gateway.start()
    try:
        with known_client(own_gateway, key) as client:
            jobs = [make(client) for _ in range(10)]
            run_all(counterpart, jobs[:5])
            wait_for(lambda: state_of(client, jobs[4]) == "succeeded", "the first half")
            # Killed while events come in.
            with concurrent.futures.ThreadPoolExecutor(1) as writer:
                writing = writer.submit(run_all, counterpart, jobs[5:])
                wait_for(lambda: state_of(client, jobs[5]) != "queued", "the second half's start")
                own_gateway.kill()
                writing.result()
        # Its repeat of an event, and of a request, change nothing.
        request = counterpart.requests[jobs[0]]
        counterpart.request(user_id, request)
        own_gateway.start()
        with known_client(own_gateway, key) as client:
            wait_for(lambda: state_of(client, jobs[9]) == "succeeded", "the second half")
            after = objects_of(client, jobs)
            assert [job["state"] for job in after] == ["succeeded"] * 10
            listed = [job["id"] for job in client.get("/v1/jobs?limit=100").json()["jobs"]]
            assert sorted(listed) == sorted(jobs)
            with frames(client, jobs[7]) as stream:
                assert len(list(stream)) == 8  # queued, twice three stages, succeeded
        # The file gone, Kafka tells everything again.
        own_gateway.kill()
        for suffix in ("", "-wal", "-shm"):
            Path(f"{own_gateway.data_dir / READ_MODEL_FILE}{suffix}").unlink(missing_ok=True)
        own_gateway.start()
        with known_client(own_gateway, key) as client:
            assert objects_of(client, jobs) == after
    finally:
        assert own_gateway.stop() == 0


def flood(counterpart: Counterpart, template: Record, jobs: list[str]) -> None:
    """Requests and events of whole jobs, as fast as they can be written."""
    records = []
    for job_id in jobs:
        request = {**template, "job_id": job_id, "request_id": str(uuid.uuid4())}
        records.append(("request", request))
        records.append(("event", job_event(request, Transition.QUEUED, at=now_ms(), stage_count=3)))
        for index, stage in enumerate(("generate", "retopology", "texture")):
            place: dict[str, Any] = {"stage": stage, "stage_index": index, "stage_count": 3, "attempt": 1}
            for transition in (Transition.STARTED, Transition.STAGE_SUCCEEDED):
                records.append(("event", job_event(request, transition, at=now_ms(), **place)))
        records.append(("event", job_event(request, Transition.SUCCEEDED, at=now_ms(), stage_count=3)))
    counterpart.write_all(records)


def all_jobs(client: httpx.Client, state: str) -> list[str]:
    found: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = client.get("/v1/jobs", params={"limit": 100, "state": state, **({"cursor": cursor} if cursor else {})})
        found += [job["id"] for job in page.json()["jobs"]]
        cursor = page.json()["next_cursor"]
    return found


def test_nothing_is_lost_or_doubled_when_reading_turns_to_bulk_and_back(
    own_gateway: GatewayProcess, counterpart: Counterpart, user_id: str
) -> None:
    key = counterpart.tenant(user_id)
    own_gateway.start()

    def turned(bulk: bool) -> bool:
        return f'"bulk": {str(bulk).lower()}' in own_gateway.log.read_text()

    try:
        with known_client(own_gateway, key) as client:
            first = make(client)
            jobs: list[str] = []
            for _ in range(20):
                wave = [str(uuid.uuid4()) for _ in range(150)]
                flood(counterpart, counterpart.requests[first], wave)
                jobs += wave
                if turned(True):
                    break
            wait_for(lambda: turned(True), "reading in bulk")
            counterpart.run_job(first)
            jobs.append(first)
            wait_for(lambda: turned(False), "prompt reading")
            later = make(client)
            counterpart.run_job(later)
            wait_for(lambda: state_of(client, later) == "succeeded", "the last job")
            assert sorted(all_jobs(client, "succeeded")) == sorted([*jobs, later])
            for job_id in (jobs[0], jobs[len(jobs) // 2], first, later):
                with frames(client, job_id) as stream:
                    assert len([frame for frame in stream if frame.event_id]) == 8
    finally:
        assert own_gateway.stop() == 0


def test_a_stream_resumes_without_gap_or_repeat_over_kill_9(
    own_gateway: GatewayProcess, counterpart: Counterpart, user_id: str
) -> None:
    key = counterpart.tenant(user_id)
    own_gateway.start()
    seen: list[tuple[str, str]] = []
    try:
        with known_client(own_gateway, key) as client:
            job_id = make(client)
            counterpart.event(job_id, Transition.STARTED, stage="generate", attempt=1)
            with frames(client, job_id) as stream:
                for frame in stream:
                    assert frame.event_id is not None
                    seen.append((frame.event, frame.event_id))
                    if len(seen) == 2:
                        break
            own_gateway.kill()
        counterpart.run_job(job_id)
        own_gateway.start()
        with known_client(own_gateway, key) as client:
            while seen[-1][0] != "job.succeeded":
                with frames(client, job_id, last=seen[-1][1]) as stream:
                    # One event a connection: every id is resumed from once.
                    frame = next(stream)
                    assert frame.event_id is not None
                    seen.append((frame.event, frame.event_id))
            with frames(client, job_id) as stream:
                whole = [(frame.event, frame.event_id) for frame in stream]
            assert seen == whole
            done = client.get(f"/v1/jobs/{job_id}/events", headers={"last-event-id": seen[-1][1]})
            assert done.status_code == 204
            # A stream of a job that goes on ends when the gateway drains.
            with frames(client, make(client)) as stream:
                assert next(stream).event == "job.queued"
                assert own_gateway.stop() == 0
                assert list(stream) == []
    finally:
        own_gateway.stop()


def test_the_port_answers_before_kafka_does(tmp_path: Path) -> None:
    gateway = GatewayProcess("127.0.0.1:1", "nowhere", tmp_path / "alone")
    gateway.start(ready=False)
    try:
        answer = httpx.get(f"{gateway.url}/readyz")
        assert answer.status_code == 503
        assert "broker" in [item["name"] for item in answer.json()["missing"]]
        posted = httpx.post(f"{gateway.url}/v1/jobs", json={})
        assert (posted.status_code, posted.json()["code"]) == (503, "starting")
        assert posted.headers["retry-after"]
    finally:
        assert gateway.stop() == 0


def test_without_answers_requests_are_stored_and_then_refused(
    kafka_bootstrap: str, counterpart: Counterpart, tmp_path: Path, user_id: str
) -> None:
    key = counterpart.tenant(user_id)
    quick = {"MESHYARD_ANSWER_TIMEOUT_MS": "50"}
    gateway = GatewayProcess(kafka_bootstrap, counterpart.settings.domain, tmp_path / "quick", **quick)
    gateway.start()
    try:
        with known_client(gateway, key) as client:
            counterpart.silent = True
            body = {"workflow": "text-to-3d", "prompt": f"a stool {uuid.uuid4()}"}
            first = client.post("/v1/jobs", json=body)
            assert (first.status_code, first.json()["state"]) == (202, "submitted")
            assert client.get(first.json()["urls"]["self"]).json()["state"] == "submitted"
            end = time.monotonic() + 30
            answer = first
            while answer.status_code == 202 and time.monotonic() < end:
                answer = client.post("/v1/jobs", json=body)
            assert (answer.status_code, answer.json()["code"]) == (503, "overloaded")
            assert int(answer.headers["retry-after"]) >= 1
            missing = [item["name"] for item in client.get("/readyz").json()["missing"]]
            assert "admission" in missing
            # It finds out by itself that admission is back.
            counterpart.silent = False
            wait_for(lambda: client.post("/v1/jobs", json=body).status_code == 202, "recovery")
            wait_for(lambda: client.get("/readyz").status_code == 200, "readiness")
    finally:
        counterpart.silent = False
        assert gateway.stop() == 0
