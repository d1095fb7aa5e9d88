"""Making, reading, listing and cancelling jobs over HTTP, with Kafka behind it."""

import hashlib
import hmac
import uuid

import httpx
from confluent_kafka import Message

from schemas.jobs import Transition
from schemas.topics import COMMANDS
from tests.integration.gateway.conftest import known_client
from tests.integration.gateway.counterpart import Counterpart
from tests.integration.gateway.process import SERVER_KEY, GatewayProcess, wait_for
from tests.support.kafka import read_topic

ARMCHAIR = {"workflow": "text-to-3d", "prompt": "a tall crimson armchair"}


def make(client: httpx.Client, **more: object) -> str:
    answer = client.post("/v1/jobs", json={**ARMCHAIR, **more})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def state_of(client: httpx.Client, job_id: str) -> str:
    return str(client.get(f"/v1/jobs/{job_id}").json()["state"])


def test_an_accepted_request_is_a_job_at_once(client: httpx.Client, counterpart: Counterpart, user_id: str) -> None:
    answer = client.post("/v1/jobs", json=ARMCHAIR)
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["location"] == job["urls"]["self"] == f"/v1/jobs/{job['id']}"
    assert answer.headers["ratelimit-policy"] == '"default";q=1000;w=100'
    assert answer.headers["ratelimit"] == '"default";r=999;t=1'
    assert job["state"] == "queued"
    assert client.get(job["urls"]["self"]).json()["state"] == "queued"
    record = counterpart.requests[job["id"]]
    assert record["user_id"] == user_id
    assert record["prompt"] == ARMCHAIR["prompt"]
    assert record["formats"] == ["glb"]
    assert record["quality"] == "standard"
    value = counterpart.codec.encode("job_requested", record)
    expected = hmac.new(bytes.fromhex(SERVER_KEY), value, hashlib.sha256).hexdigest()
    assert counterpart.signatures[job["id"]] == f"gateway:{expected}".encode()


def test_a_job_shows_its_stages_and_end(client: httpx.Client, counterpart: Counterpart) -> None:
    job_id = make(client)
    counterpart.event(job_id, Transition.STARTED, stage="generate", attempt=1, wait_seconds=0.5)
    wait_for(lambda: state_of(client, job_id) == "running", "the start")
    counterpart.progress(job_id, "generate", 12.5)
    wait_for(lambda: client.get(f"/v1/jobs/{job_id}").json()["progress"] == 12.5, "progress")
    job = client.get(f"/v1/jobs/{job_id}").json()
    assert (job["stage"], job["attempt"], job["message"]) == ("generate", 1, "generate goes on")
    counterpart.run_job(job_id)
    wait_for(lambda: state_of(client, job_id) == "succeeded", "the end")
    job = client.get(f"/v1/jobs/{job_id}").json()
    assert job["progress"] == 100.0
    assert [stage["state"] for stage in job["stages"]] == ["succeeded"] * 3
    assert job["stages"][1] == {
        "name": "retopology",
        "state": "succeeded",
        "attempt": 1,
        "wait_seconds": 0.25,
        "run_seconds": 1.5,
        "gpu_seconds": 1.25,
    }
    assert job["created_at"] <= job["queued_at"] <= job["started_at"] <= job["finished_at"]
    assert job["finished_at"].endswith("Z")
    assert job["error"] is None


def test_a_failure_tells_its_class_and_message(client: httpx.Client, counterpart: Counterpart) -> None:
    job_id = make(client)
    counterpart.event(job_id, Transition.STARTED, stage="generate", attempt=1)
    counterpart.event(job_id, Transition.STAGE_FAILED, stage="generate", attempt=1, error_class="permanent")
    counterpart.event(job_id, Transition.FAILED, attempt=1, error_class="permanent", error_message="no such shape")
    wait_for(lambda: state_of(client, job_id) == "failed", "the end")
    job = client.get(f"/v1/jobs/{job_id}").json()
    assert job["error"] == {"class": "permanent", "message": "no such shape"}
    # A final state never changes, whatever comes later.
    counterpart.event(job_id, Transition.SUCCEEDED)
    marker = make(client)
    counterpart.run_job(marker)
    wait_for(lambda: state_of(client, marker) == "succeeded", "the marker")
    assert state_of(client, job_id) == "failed"


def test_the_same_key_and_body_is_the_same_job(client: httpx.Client) -> None:
    headers = {"idempotency-key": "order-17"}
    first = client.post("/v1/jobs", json=ARMCHAIR, headers=headers)
    again = client.post("/v1/jobs", json=ARMCHAIR, headers=headers)
    assert first.status_code == again.status_code == 202
    assert first.json()["id"] == again.json()["id"]
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json()["state"] == "queued"


def test_the_same_key_with_another_body_is_a_conflict(client: httpx.Client) -> None:
    headers = {"idempotency-key": "order-18"}
    assert client.post("/v1/jobs", json=ARMCHAIR, headers=headers).status_code == 202
    other = client.post("/v1/jobs", json={**ARMCHAIR, "prompt": "a green stool"}, headers=headers)
    assert other.status_code == 422
    assert other.json()["code"] == "idempotency_conflict"
    assert other.json()["retryable"] is False


def test_a_duplicate_of_a_finished_job_tells_its_end(client: httpx.Client, counterpart: Counterpart) -> None:
    headers = {"idempotency-key": "order-19"}
    job_id = client.post("/v1/jobs", json=ARMCHAIR, headers=headers).json()["id"]
    counterpart.run_job(job_id)
    wait_for(lambda: state_of(client, job_id) == "succeeded", "the end")
    assert client.post("/v1/jobs", json=ARMCHAIR, headers=headers).json()["state"] == "succeeded"


def test_a_rate_limit_says_when_to_come_again(client: httpx.Client) -> None:
    answer = client.post("/v1/jobs", json={**ARMCHAIR, "parameters": {"answer": "requests"}})
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "2"
    assert answer.headers["ratelimit"] == '"default";r=0;t=2'
    assert answer.json()["code"] == "rate_limit"
    assert answer.json()["retryable"] is True
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


def test_admissions_other_refusals_have_codes(client: httpx.Client) -> None:
    for code, status in (("forbidden", 403), ("invalid_request", 422)):
        answer = client.post("/v1/jobs", json={**ARMCHAIR, "parameters": {"answer": code}})
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert answer.headers["content-type"] == "application/problem+json"


def test_a_scope_that_is_absent_is_refused(gateway: GatewayProcess, counterpart: Counterpart, user_id: str) -> None:
    key = counterpart.tenant(user_id, scopes=("jobs",))
    with known_client(gateway, key) as client:
        answer = client.post("/v1/jobs", json={"workflow": "text-to-3d", "pipeline_id": "synthetic"})
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


def test_queue_position_counts_who_goes_first(client: httpx.Client, counterpart: Counterpart, user_id: str) -> None:
    first, second = make(client), make(client)
    counterpart.backlog = [
        {"user_id": user_id, "start_tag": 10.0, "step": 4.0, "queued_tasks": 2, "lane": "standard"},
        {"user_id": "other", "start_tag": 9.0, "step": 1.0, "queued_tasks": 50, "lane": "standard"},
        {"user_id": "another", "start_tag": 0.0, "step": 1.0, "queued_tasks": 50, "lane": "batch"},
    ]
    # Tags: own 10, 14; the other's 9, 10, 11, ...: one goes before the first, five before the second.
    wait_for(lambda: client.get(f"/v1/jobs/{first}").json()["queue_position"] == 2, "the first's place")
    wait_for(lambda: client.get(f"/v1/jobs/{second}").json()["queue_position"] == 7, "the second's place")


def test_cancel_goes_to_the_commands_topic(
    client: httpx.Client, counterpart: Counterpart, kafka_bootstrap: str, user_id: str
) -> None:
    job_id = make(client)
    answer = client.post(f"/v1/jobs/{job_id}/cancel", json={"reason": "wrong colour"})
    assert (answer.status_code, answer.json()) == (202, {"status": "cancellation_requested"})

    def own(message: Message) -> bool:
        return message.key() == user_id.encode()

    (command,) = [
        counterpart.codec.decode(m.value(), "command") for m in read_topic(kafka_bootstrap, COMMANDS) if own(m)
    ]
    assert (command["job_id"], command["kind"], command["reason"]) == (job_id, "cancel", "wrong colour")
    counterpart.event(job_id, Transition.CANCELED)
    wait_for(lambda: state_of(client, job_id) == "canceled", "the end")
    again = client.post(f"/v1/jobs/{job_id}/cancel")
    assert (again.status_code, again.json()) == (200, {"status": "already_canceled"})


def test_lists_go_page_by_page(client: httpx.Client, counterpart: Counterpart) -> None:
    made = [make(client) for _ in range(5)]
    counterpart.event(made[0], Transition.CANCELED)
    wait_for(lambda: state_of(client, made[0]) == "canceled", "the end")
    wait_for(lambda: len(client.get("/v1/jobs").json()["jobs"]) == 5, "all jobs")
    seen, cursor = [], None
    while True:
        page = client.get("/v1/jobs", params={"limit": 2, **({"cursor": cursor} if cursor else {})}).json()
        seen += [job["id"] for job in page["jobs"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert sorted(seen) == sorted(made)
    assert [job["id"] for job in client.get("/v1/jobs?state=canceled").json()["jobs"]] == [made[0]]


def test_bad_list_parameters_are_named(client: httpx.Client) -> None:
    for query, name in (
        ("limit=0", "limit"),
        ("state=lost", "state"),
        ("cursor=%21", "cursor"),
        ("page=2", "page"),
    ):
        answer = client.get(f"/v1/jobs?{query}")
        assert (answer.status_code, answer.json()["field"]) == (400, name)


def test_a_request_straight_on_kafka_is_a_job_too(client: httpx.Client, counterpart: Counterpart, user_id: str) -> None:
    template = counterpart.requests[make(client)]
    direct = {**template, "job_id": str(uuid.uuid4()), "request_id": str(uuid.uuid4())}
    counterpart.request(user_id, direct)
    wait_for(lambda: client.get(f"/v1/jobs/{direct['job_id']}").status_code == 200, "the job")
    # Under another user's key it is nobody's.
    forged = {**template, "job_id": str(uuid.uuid4()), "request_id": str(uuid.uuid4())}
    counterpart.request("somebody-else", forged)
    counterpart.run_job(direct["job_id"])
    wait_for(lambda: state_of(client, direct["job_id"]) == "succeeded", "the end")


def test_poison_in_the_events_is_passed_by(client: httpx.Client, counterpart: Counterpart) -> None:
    job_id = make(client)
    for poison in (b"", b"{}", b"\x00\x00\x00\x00\x08\x02", b"\x00\x00\x00\xff\xff"):
        counterpart.raw_event(job_id, poison)
    counterpart.run_job(job_id)
    wait_for(lambda: state_of(client, job_id) == "succeeded", "the end")
