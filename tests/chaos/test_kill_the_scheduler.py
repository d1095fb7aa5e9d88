"""The scheduler is killed again and again while real workers run synthetic jobs of users with different weights.

Nothing is lost, no task is ever on two slots, and soon after the last kill each user has its share again. Ground truth
is read from the topics: work records, job events.
"""

import random
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from schemas.codec import Codec, Record
from schemas.jobs import TERMINAL_TRANSITIONS
from schemas.topics import EVENTS, PLATFORM_EVENTS, catalogue, schedule_topic, work_topic
from streams.kafka.admin import create_topics
from streams.kafka.consumer import consumer_config, end_offset
from streams.kafka.producer import producer_config
from streams.kafka.settings import KafkaSettings
from streams.policy.ready import stage_ready
from tests.support.kafka import read_topic
from tests.support.roles import Role, wait_until

WORKERS = 3
CAPACITY = 2
STAGES = 3
TASK_SECONDS = 0.1
WEIGHTS = {"light": 1.0, "middle": 2.0, "heavy": 4.0}


@dataclass(frozen=True, kw_only=True)
class Form:
    """jobs_per_weight: jobs of a user for each unit of weight; kills; settle_seconds: after the last kill, shares are
    measured from then on."""

    jobs_per_weight: int
    kills: int
    settle_seconds: float

    @property
    def jobs(self) -> int:
        return int(self.jobs_per_weight * sum(WEIGHTS.values()))


class Yard:
    """A domain of its own with a scheduler and workers."""

    def __init__(self, bootstrap: str, folder: Path) -> None:
        self.settings = KafkaSettings(bootstrap=bootstrap, domain=f"k{uuid.uuid4().hex[:8]}")
        create_topics(self.settings, catalogue(domains=(self.settings.domain,)))
        self.codec = Codec()
        self._env = {
            "MESHYARD_KAFKA_BOOTSTRAP": bootstrap,
            "MESHYARD_DOMAIN": self.settings.domain,
            "MESHYARD_OBJECTS_URL": f"file://{folder / 'objects'}",
            "MESHYARD_TRUST_TOPIC": "1",
            "MESHYARD_SNAPSHOT_ENTRIES": "200",
            # Slots are compared often; jobs are not: other tests' events stand on the same topic.
            "MESHYARD_RECONCILE_SECONDS": "6",
            "MESHYARD_RECONCILE_AFTER_SECONDS": "3600",
        }
        self.told: dict[str, Record] = {}  # event id -> event of one of our jobs
        self._jobs: set[str] = set()
        self._reader = Consumer(consumer_config(self.settings, f"chaos-{self.settings.domain}"))
        self._reader.assign(
            [
                TopicPartition(EVENTS, p, end_offset(self.settings, EVENTS, p))
                for p in range(self.settings.user_partitions)
            ]
        )
        self.scheduler = self._role(folder, "scheduler", "streams", "scheduler")
        self.workers = [
            self._role(folder, f"worker-{n}", "inference", "--synthetic", "--slot", str(n), "--capacity", str(CAPACITY))
            for n in range(WORKERS)
        ]

    def _role(self, folder: Path, name: str, *arguments: str) -> Role:
        return Role(list(arguments), {**self._env, "MESHYARD_DATA_DIR": str(folder / name)}, folder / f"{name}.log")

    def start(self) -> None:
        for role in (self.scheduler, *self.workers):
            role.start()

    def stop(self) -> None:
        self._reader.close()
        for role in (self.scheduler, *self.workers):
            if role.process is not None and role.process.poll() is None:
                role.kill()

    def submit(self, jobs_per_weight: int) -> set[str]:
        """Tenants, then all jobs in any order; returns the jobs' ids."""
        shares = [
            {"user_id": user, "tier": "pro", "weight": weight, "max_running": None} for user, weight in WEIGHTS.items()
        ]
        entries = [{"kind": "tenant_changed", "at": now_ms(), "tenant": share} for share in shares]
        users = [user for user, weight in WEIGHTS.items() for _ in range(int(weight * jobs_per_weight))]
        random.Random(5).shuffle(users)
        requests = [self._request(user) for user in users]
        self._jobs |= {request["job_id"] for request in requests}
        for request in requests:
            ready = stage_ready(request, self.codec.encode("job_requested", request), tier="pro", at_ms=now_ms())
            entries.append({"kind": "stage_ready", "at": now_ms(), "ready": ready})
        producer = Producer(producer_config(self.settings))
        for first in range(0, len(entries), 50):
            value = self.codec.encode("inbox_batch", {"entries": entries[first : first + 50]})
            producer.produce(schedule_topic(self.settings.domain), value=value)
        assert producer.flush(30) == 0
        return self._jobs

    def _request(self, user: str) -> Record:
        request = {
            "request_id": str(uuid.uuid4()), "job_id": str(uuid.uuid4()), "user_id": user, "job_type": "model",
            "created_at": now_ms(), "workflow": "text-to-3d", "pipeline_id": "synthetic", "seed": 1,
            "quality": "standard", "formats": ["glb"], "parameters": {"seconds": str(TASK_SECONDS)},
        }  # fmt: skip
        return self.codec.decode(self.codec.encode("job_requested", request))

    def records(self, topic: str, name: str) -> list[Record]:
        found = []
        for message in read_topic(self.settings.bootstrap, topic):
            value = message.value()
            assert isinstance(value, bytes)
            found.append(self.codec.decode(value, name))
        return found

    def read_on(self) -> list[Record]:
        """Distinct events of our jobs, all that were told so far; a little more each time while they come."""
        deadline = time.monotonic() + 0.2
        while time.monotonic() < deadline and (messages := self._reader.consume(1_000, timeout=0.1)):
            for message in messages:
                key, value = message.key(), message.value()
                if message.error() is None and isinstance(value, bytes) and as_text(key) in self._jobs:
                    event = self.codec.decode(value, "job_event")
                    self.told.setdefault(event["event_id"], event)
        return list(self.told.values())

    def count(self, *transitions: str) -> int:
        """How many such events there are."""
        return sum(event["transition"] in transitions for event in self.read_on())


def as_text(key: str | bytes | None) -> str:
    return key.decode() if isinstance(key, bytes) else key or ""


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@pytest.fixture
def yard(kafka_bootstrap: str, tmp_path: Path) -> Iterator[Yard]:
    found = Yard(kafka_bootstrap, tmp_path)
    yield found
    found.stop()


@pytest.mark.parametrize(
    "form",
    [
        pytest.param(Form(jobs_per_weight=36, kills=3, settle_seconds=1.0), id="short"),
        pytest.param(
            Form(jobs_per_weight=480, kills=12, settle_seconds=60.0),
            id="full",
            marks=[pytest.mark.soak, pytest.mark.timeout(900)],
        ),
    ],
)
def test_kill_9_of_the_scheduler_loses_nothing_and_shares_come_back(yard: Yard, form: Form) -> None:
    rng = random.Random(23)
    yard.start()
    jobs = yard.submit(form.jobs_per_weight)
    assert len(jobs) == form.jobs

    def done() -> int:
        return yard.count("stage_succeeded")

    killed_ms = 0
    for number in range(form.kills):
        # The kills fall into the first half of the work, each at another point of a batch.
        least = form.jobs * STAGES * (number + 1) // (2 * form.kills)
        wait_until(lambda least=least: done() >= least, f"{least} tasks are done", 240)  # type: ignore[misc]
        time.sleep(rng.uniform(0, 0.3))
        yard.scheduler.kill()
        killed_ms = now_ms()
        yard.scheduler.start()

    wait_until(lambda: yard.count(*TERMINAL_TRANSITIONS) >= len(jobs), "every job has ended", 480)
    events = yard.read_on()
    check_ends(events, jobs)
    check_places(yard.records(work_topic(yard.settings.domain), "work_batch"), events)
    told = yard.records(PLATFORM_EVENTS, "platform_event")
    assert [e for e in told if e["domain"] == yard.settings.domain and e["kind"] == "repair"] == []
    shares = measured_shares(events, since_ms=killed_ms, settle_seconds=form.settle_seconds)
    total = sum(WEIGHTS.values())
    print({user: round(share, 3) for user, share in shares.items()})
    for user, weight in WEIGHTS.items():
        assert abs(shares[user] - weight / total) < 0.05, shares


def check_ends(events: list[Record], jobs: set[str]) -> None:
    """Each job ends once, well, and each of its stages succeeds once."""
    ends = Counter((e["job_id"], e["transition"]) for e in events if e["transition"] in TERMINAL_TRANSITIONS)
    assert ends == {(job, "succeeded"): 1 for job in jobs}
    stages = Counter((e["job_id"], e["stage"]) for e in events if e["transition"] == "stage_succeeded")
    assert set(stages.values()) == {1}
    assert len(stages) == STAGES * len(jobs)


def check_places(batches: list[Record], events: list[Record]) -> None:
    """A dispatch goes to one life of one slot, however often it is sent; two attempts of a stage never overlap."""
    places: dict[str, set[tuple[int, int]]] = defaultdict(set)
    for batch in batches:
        for item in batch["items"]:
            places[item["dispatch_id"]].add((batch["slot"], batch["epoch"]))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}
    times: dict[tuple[str, str], dict[int, dict[str, int]]] = defaultdict(lambda: defaultdict(dict))
    for event in events:
        if event["stage"] is not None and event["transition"].startswith(("started", "stage_")):
            times[event["job_id"], event["stage"]][event["attempt"]][event["transition"]] = event["at"]
    for task, attempts in times.items():
        for attempt, told in attempts.items():
            ends = [at for transition, at in told.items() if transition != "started"]
            following = attempts.get(attempt + 1, {}).get("started")
            assert following is None or (ends and max(ends) <= following), (task, attempts)


def measured_shares(events: list[Record], *, since_ms: int, settle_seconds: float) -> dict[str, float]:
    """Each user's share of the tasks that started from then on until the first user had none left to start."""
    started: list[tuple[int, str]] = sorted(
        (e["at"], e["user_id"]) for e in events if e["transition"] == "started" and e["attempt"] == 1
    )
    back = next(at for at, _ in started if at > since_ms + 1_000)
    last: dict[str, int] = {}
    for at, user in started:
        last[user] = at
    counted: dict[str, Any] = Counter(
        user for at, user in started if back + settle_seconds * 1000 <= at <= min(last.values())
    )
    total = sum(counted.values())
    assert total > 150, f"{total} tasks are too few to measure shares by"
    return {user: counted[user] / total for user in WEIGHTS}
