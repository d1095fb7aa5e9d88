"""What a user can ask of the order and time of jobs, on a whole stack: each wish over HTTP, each effect seen there."""

import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from confluent_kafka import Producer

from gateway.keys import new_api_key
from schemas.codec import Codec
from schemas.topics import TENANTS
from streams.kafka.producer import producer_config
from streams.kafka.settings import KafkaSettings
from tests.support.stack import RunningStack

# A small installation that is soon busy: its load levels go by the age of what waits, its backlogs are short.
POLICY = """
[tiers.pro]
weight = 4.0
max_running = 32
max_backlog = 12

[load]
hold_seconds = 1.0

[[load.levels]]
wait_seconds = 1000.0
age_seconds = 1.5

[[load.levels]]
wait_seconds = 1000.0
age_seconds = 2.0

[[load.levels]]
wait_seconds = 1000.0
age_seconds = 2.5
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """One slot, so that every job but one waits."""
    folder = tmp_path_factory.mktemp("scheduling")
    policy = folder / "policy.toml"
    policy.write_text(POLICY)
    arguments = ("--slots", "0", "--synthetic-slots", "1", "--policy", str(policy))
    with RunningStack(folder / "data", *arguments, env={"MESHYARD_GATEWAY_PORT": ""}) as running:
        yield running


@pytest.fixture
def client(stack: RunningStack) -> Iterator[httpx.Client]:
    """The user `local`, tier pro."""
    state = stack.state()
    key = Path(state["key_file"]).read_text().strip()
    with client_of(stack, key) as found:
        yield found
        # What a failed test leaves must not stand in the next one's way.
        left = [one["id"] for one in found.get("/v1/jobs?limit=100").json()["jobs"] if one["finished_at"] is None]
        for job_id in left:
            found.post(f"/v1/jobs/{job_id}/cancel")
        ended(found, *left)


def client_of(stack: RunningStack, key: str) -> httpx.Client:
    return httpx.Client(base_url=stack.state()["gateway"], headers={"authorization": f"Bearer {key}"}, timeout=30.0)


def submit(client: httpx.Client, seconds: float = 0.0, **wishes: object) -> httpx.Response:
    body = {"workflow": "text-to-3d", "pipeline_id": "synthetic", "parameters": {"seconds": str(seconds)}, **wishes}
    return client.post("/v1/jobs", json=body, headers={"idempotency-key": str(uuid.uuid4())})


def made(client: httpx.Client, seconds: float = 0.0, **wishes: object) -> str:
    answer = submit(client, seconds, **wishes)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def job(client: httpx.Client, job_id: str) -> dict[str, Any]:
    found: dict[str, Any] = client.get(f"/v1/jobs/{job_id}").json()
    return found


def ended(client: httpx.Client, *job_ids: str, seconds: float = 60.0) -> list[dict[str, Any]]:
    """The jobs when all have ended."""
    end = time.monotonic() + seconds
    while True:
        found = [job(client, job_id) for job_id in job_ids]
        if all(one["finished_at"] is not None for one in found):
            return found
        assert time.monotonic() < end, [(one["id"], one["state"]) for one in found]
        time.sleep(0.1)


def running(client: httpx.Client, job_id: str) -> None:
    end = time.monotonic() + 30.0
    while job(client, job_id)["started_at"] is None:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_priority_and_pause_decide_among_ones_own_jobs(client: httpx.Client) -> None:
    blocker = made(client, 1.5)
    running(client, blocker)
    paused, plain, urgent = (made(client) for _ in range(3))
    for job_id, change in ((paused, {"paused": True}), (urgent, {"priority": 1})):
        assert client.patch(f"/v1/jobs/{job_id}", json=change).status_code == 202
    first, second = ended(client, urgent, plain)
    assert first["started_at"] <= second["started_at"]
    waiting = job(client, paused)
    assert (waiting["state"], waiting["paused"], waiting["eta"]) == ("queued", True, None)
    assert client.patch(f"/v1/jobs/{paused}", json={"paused": False}).status_code == 202
    assert [one["state"] for one in ended(client, paused, blocker)] == ["succeeded"] * 2


def test_a_job_begins_at_its_time_and_a_newer_one_replaces_it(client: httpx.Client) -> None:
    at = datetime.now(UTC) + timedelta(seconds=2)
    timed = submit(client, run_at=at.isoformat())
    assert timed.json()["state"] == "held"
    older, newer = (made(client, debounce={"key": "sofa", "seconds": 1}) for _ in range(2))
    (replaced, kept) = ended(client, older, newer)
    assert (replaced["state"], replaced["error"]["class"]) == ("canceled", "superseded")
    assert kept["state"] == "succeeded"
    (done,) = ended(client, timed.json()["id"])
    assert done["state"] == "succeeded"
    assert datetime.fromisoformat(done["queued_at"]) >= at - timedelta(milliseconds=1)


def test_a_held_job_can_be_canceled(client: httpx.Client) -> None:
    held = made(client, run_at=(datetime.now(UTC) + timedelta(hours=1)).isoformat())
    assert client.post(f"/v1/jobs/{held}/cancel").json() == {"status": "cancellation_requested"}
    (canceled,) = ended(client, held)
    assert (canceled["state"], canceled["error"]) == ("canceled", None)


def test_limits_of_the_queue_are_told_with_their_names(stack: RunningStack, client: httpx.Client) -> None:
    blocker = made(client, 2.0)
    running(client, blocker)
    late = made(client, start_within_seconds=0.5)
    full = submit(client)
    while full.status_code == 202:
        full = submit(client)
    assert (full.status_code, full.json()["code"], full.json()["limit"]) == (429, "backlog_limit", "backlog")
    (aborted,) = ended(client, late)
    assert (aborted["state"], aborted["error"]["class"]) == ("aborted", "start_deadline")
    # The gateway refuses by the newest report; before that the scheduler would end the job, as aborted.
    stack.until(lambda: client.get("/v1/load").json()["queued_tasks"] > 0)
    deep = submit(client, max_queue_depth=0)
    assert (deep.status_code, deep.json()["code"], deep.json()["limit"]) == (429, "queue_depth", "queue_depth")
    assert int(deep.headers["retry-after"]) >= 1


def test_under_load_the_free_tier_is_refused_and_others_go_on(stack: RunningStack, client: httpx.Client) -> None:
    with client_of(stack, free_user(stack)) as free:
        stack.until(lambda: free.get("/v1/load").status_code == 200)
        before = made(free)
        ended(free, before)
        blocker, waiting = made(client, 3.0), made(client)
        stack.until(lambda: client.get("/v1/load").json()["level"] == 3)
        refused = submit(free)
        assert (refused.status_code, refused.json()["code"], refused.json()["limit"]) == (503, "overloaded", "load")
        assert int(refused.headers["retry-after"]) >= 1
        paid = made(client)
        assert "tier free" in client.get("/v1/load").json()["effects"][-1]
        assert [one["state"] for one in ended(client, blocker, waiting, paid)] == ["succeeded"] * 3
        stack.until(lambda: client.get("/v1/load").json()["level"] == 0)
        assert ended(free, made(free))[0]["state"] == "succeeded"


def free_user(stack: RunningStack) -> str:
    """The key of a new user of the tier free."""
    text, key = new_api_key()
    user_id = f"free-{uuid.uuid4().hex[:8]}"
    tenant = {
        "user_id": user_id,
        "tier": "free",
        "weight": 1.0,
        "requests_per_minute": 600.0,
        "burst_requests": 100,
        "scopes": ["jobs", "synthetic"],
        "keys": [key],
        "updated_at": time.time_ns() // 1_000_000,
    }
    producer = Producer(producer_config(KafkaSettings(bootstrap=stack.state()["kafka"])))
    producer.produce(TENANTS, key=user_id, value=Codec().encode("tenant", tenant))
    assert producer.flush(30) == 0
    return text
