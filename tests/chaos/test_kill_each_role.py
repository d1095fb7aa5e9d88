"""200 jobs over HTTP while worker, streams, sink and gateway are each killed once with kill -9.

Every accepted job succeeds, each job and each stage of it ends once, and ClickHouse holds what Kafka holds. Ground
truth is read here, from the topics and from the tables, not through the gateway.
"""

import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from clickhouse_driver import Client as ClickHouse

from analytics.client import connect
from schemas.codec import Codec
from schemas.jobs import TERMINAL_TRANSITIONS
from tests.support.kafka import read_topic
from tests.support.stack import RunningStack

JOBS = 200
CLIENTS = 8
KILLS = ("worker-0", "streams", "sink", "gateway")
STAGES = ("generate", "retopology", "texture")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """A stack with three workers for synthetic jobs."""
    folder = tmp_path_factory.mktemp("chaos") / "data"
    env = {"MESHYARD_GATEWAY_PORT": ""}
    with RunningStack(folder, "--slots", "0", "--synthetic-slots", "3", env=env) as running:
        yield running


class Client:
    """Submits as a careful user does: one Idempotency-Key a job, again after every lost connection, 429 and 503."""

    def __init__(self, stack: RunningStack) -> None:
        self._stack = stack
        self._key = Path(stack.state()["key_file"]).read_text().strip()
        self.accepted: dict[str, str] = {}  # Idempotency-Key -> job id
        self._lock = threading.Lock()

    def submit_all(self, count: int) -> list[threading.Thread]:
        """Starts the threads that submit; they end when every job has its answer."""
        keys = [str(uuid.uuid4()) for _ in range(count)]
        threads = [threading.Thread(target=self._submit, args=(keys[n::CLIENTS],)) for n in range(CLIENTS)]
        for thread in threads:
            thread.start()
        return threads

    def has_accepted(self, count: int) -> bool:
        """Whether at least so many jobs were accepted."""
        return len(self.accepted) >= count

    def _submit(self, keys: list[str]) -> None:
        url = self._stack.state()["gateway"]
        body = {"workflow": "text-to-3d", "pipeline_id": "synthetic", "parameters": {"seconds": "0.03"}}
        with httpx.Client(base_url=url, timeout=15) as http:
            for key in keys:
                headers = {"Authorization": f"Bearer {self._key}", "Idempotency-Key": key}
                deadline = time.monotonic() + 90
                while True:
                    assert time.monotonic() < deadline, f"{key} was never accepted"
                    try:
                        answer = http.post("/v1/jobs", json=body, headers=headers)
                    except httpx.TransportError:
                        time.sleep(0.2)
                        continue
                    if answer.status_code in (429, 503):
                        time.sleep(float(answer.headers["Retry-After"]))
                        continue
                    assert answer.status_code == 202, answer.text
                    with self._lock:
                        self.accepted[key] = answer.json()["id"]
                    break


def events(stack: RunningStack) -> list[dict[str, Any]]:
    """Every committed record of jobs.events, with its place."""
    codec = Codec()
    found = []
    for message in read_topic(stack.state()["kafka"], "jobs.events"):
        value = message.value()
        assert isinstance(value, bytes)
        place = (message.partition(), message.offset())
        found.append({**codec.decode(value, "job_event"), "place": place})
    return found


def test_nothing_is_lost_and_nothing_ends_twice(stack: RunningStack) -> None:
    client = Client(stack)
    threads = client.submit_all(JOBS)
    for number, role in enumerate(KILLS):
        stack.until(partial(client.has_accepted, (number + 1) * 30), 90)
        stack.kill_role(role)
        time.sleep(1.0)
    for thread in threads:
        thread.join(120)
    jobs = set(client.accepted.values())
    assert len(jobs) == len(client.accepted) == JOBS

    def ended() -> bool:
        return len({e["job_id"] for e in events(stack) if e["transition"] in TERMINAL_TRANSITIONS} & jobs) == JOBS

    stack.until(ended, 90)
    check_kafka(events(stack), jobs)
    check_clickhouse(stack)


def check_kafka(records: list[dict[str, Any]], jobs: set[str]) -> None:
    """By distinct event ids: one end a job, and it is success; one success a stage."""
    distinct = {record["event_id"]: record for record in records}.values()
    assert {record["job_id"] for record in distinct} == jobs
    ends = Counter((r["job_id"], r["transition"]) for r in distinct if r["transition"] in TERMINAL_TRANSITIONS)
    assert ends == {(job, "succeeded"): 1 for job in jobs}
    stages = Counter((r["job_id"], r["stage"]) for r in distinct if r["transition"] == "stage_succeeded")
    assert stages == {(job, stage): 1 for job in jobs for stage in STAGES}


JOB_STATES = "SELECT state, count() FROM jobs GROUP BY state"
STAGES_DONE = "SELECT stage, count() FROM stage_attempts WHERE outcome = 'stage_succeeded' GROUP BY stage"


def view(client: ClickHouse, query: str) -> dict[str, int]:
    return dict(client.execute(query))


def check_clickhouse(stack: RunningStack) -> None:
    """The raw table holds each record once, by its place; the views count what Kafka counts."""
    kafka = events(stack)
    client = connect(Path(stack.state()["clickhouse_url_file"]).read_text().strip())
    try:
        stack.until(lambda: client.execute("SELECT count() FROM job_events")[0][0] >= len(kafka), 60)
        rows = client.execute("SELECT partition, offset, event_id FROM job_events")
        assert sorted(rows) == sorted((*record["place"], record["event_id"]) for record in kafka)
        # A block is in the table a moment before it is in the views; a view that lost something stays behind.
        stack.until(lambda: view(client, JOB_STATES) == {"succeeded": JOBS}, 20)
        stack.until(lambda: view(client, STAGES_DONE) == dict.fromkeys(STAGES, JOBS), 20)
    finally:
        client.disconnect()
