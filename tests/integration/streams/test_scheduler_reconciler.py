"""What the reconciler does about jobs: on a broker of its own, whose jobs.events hold no other installation's jobs."""

import random
import time
import uuid
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import Consumer, TopicPartition

from schemas.codec import Codec, Record
from schemas.events import job_event
from schemas.jobs import Transition
from schemas.topics import EVENTS, TENANTS, requests_topic, schedule_topic
from streams.agents.groups import scheduler_group
from streams.kafka.consumer import consumer_config, end_offset
from streams.kafka.settings import KafkaSettings
from streams.local.broker import Broker
from streams.local.settings import LocalBrokerSettings
from tests.integration.streams.played_slots import Slots, entries, repairs
from tests.support.kafka import produce
from tests.support.roles import Role, wait_until
from tests.support.world import ready

StartRole = Callable[..., Role]
WORKFLOW = "text-to-3d"
RECONCILE = {"MESHYARD_RECONCILE_SECONDS": "1", "MESHYARD_RECONCILE_AFTER_SECONDS": "1"}
ARTEFACT = {"role": "result", "uri": "file:///a", "sha256": "0" * 64, "bytes": 3, "media_type": "application/json"}


@pytest.fixture(scope="module")
def kafka_bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A broker for this module alone."""
    broker = Broker(LocalBrokerSettings.from_env(tmp_path_factory.mktemp("kafka")))
    try:
        broker.start(with_parent=True)
        broker.wait_ready()
        yield broker.bootstrap
    finally:
        broker.stop()


@pytest.fixture
def slots(settings: KafkaSettings, codec: Codec) -> Iterator[Slots]:
    """One slot of the domain, joined."""
    found = Slots(settings, codec, count=1)
    yield found
    found.close()


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def request(user_id: str) -> Record:
    """A synthetic job as a producer asks for it."""
    return {
        "request_id": str(uuid.uuid4()), "job_id": str(uuid.uuid4()), "user_id": user_id, "tier": None,
        "job_type": "model", "created_at": now_ms(), "workflow": WORKFLOW, "pipeline_id": "synthetic",
        "model_version": None, "prompt": None, "seed": 7, "quality": "draft", "formats": ["glb"], "parameters": {},
        "start_within_seconds": 600.0, "priority": 2,
    }  # fmt: skip


def accepted(settings: KafkaSettings, codec: Codec, asked: Record) -> None:
    """The event by which admission accepts a job."""
    event = job_event(asked, Transition.QUEUED, at=asked["created_at"], stage_count=3, tier="pro", lane="interactive")
    produce(settings.bootstrap, EVENTS, [(asked["job_id"], codec.encode("job_event", event))])


def test_a_job_that_was_accepted_and_never_reached_the_inbox_is_handed_in_again(
    settings: KafkaSettings, codec: Codec, start_role: StartRole, slots: Slots
) -> None:
    """One whose request cannot be found is given up, and said so; one that the scheduler knows is left alone."""
    user = f"user-{settings.domain}"
    lost, known, ghost = request(user), request(user), request(user)
    raw = {asked["job_id"]: codec.encode("job_requested", asked) for asked in (lost, known)}
    produce(settings.bootstrap, requests_topic(WORKFLOW), [(user, value) for value in raw.values()])
    for asked in (lost, known, ghost):
        accepted(settings, codec, asked)
    entry = {"kind": "stage_ready", "at": now_ms(), "ready": ready(known["job_id"], user)}
    produce(
        settings.bootstrap, schedule_topic(settings.domain), [("a", codec.encode("inbox_batch", {"entries": [entry]}))]
    )
    # The played slot sends no heartbeats, and the reconciler may take longer than a silent slot is given.
    role = start_role("streams", "scheduler", **RECONCILE, MESHYARD_SLOT_GRACE_SECONDS="600")

    def both() -> bool:
        slots.work(random.Random(1))
        names = {item["job_id"] for item in slots.seen[0]}
        return {lost["job_id"], known["job_id"]} <= names and ghost["job_id"] in repairs(settings, codec)

    wait_until(both, "the forgotten job was dispatched", 40)
    item = next(item for item in slots.seen[0] if item["job_id"] == lost["job_id"])
    assert item["request"] == raw[lost["job_id"]]
    assert (item["lane"], item["priority"], item["tier"]) == ("interactive", 2, "pro")
    told = repairs(settings, codec)
    assert told[lost["job_id"]]["repair"] == "job_handed_in"
    assert told[ghost["job_id"]] == {"repair": "job_given_up", "outcome": "request_not_found"}
    assert known["job_id"] not in told
    handed = [e["ready"]["job_id"] for e in entries(settings, codec, "stage_ready")]
    assert handed.count(lost["job_id"]) == 1
    assert role.stop() == 0


def test_a_queue_that_begins_anew_takes_in_open_jobs_and_slots(
    settings: KafkaSettings, codec: Codec, start_role: StartRole, slots: Slots
) -> None:
    """One job waits, one has a stage behind it, one has ended: the first two go on where they were. The slot joins
    again, and the user's weight is known."""
    user = f"user-{settings.domain}"
    tenant = {
        "user_id": user, "tier": "enterprise", "weight": 2.0, "requests_per_minute": 600.0, "burst_requests": 10,
        "scopes": ["jobs"], "keys": [], "updated_at": 1,
    }  # fmt: skip
    produce(settings.bootstrap, TENANTS, [(user, codec.encode("tenant", tenant))])
    waits, runs, ended = request(user), request(user), request(user)
    values = [(user, codec.encode("job_requested", asked)) for asked in (waits, runs, ended)]
    produce(settings.bootstrap, requests_topic(WORKFLOW), values)
    for asked in (waits, runs, ended):
        accepted(settings, codec, asked)
    told = [
        job_event(runs, Transition.STAGE_SUCCEEDED, at=now_ms(), stage="generate", stage_index=0, stage_count=3,
                  attempt=1, artefacts=[ARTEFACT]),
        job_event(ended, Transition.SUCCEEDED, at=now_ms(), stage_index=2, stage_count=3, attempt=1),
    ]  # fmt: skip
    produce(settings.bootstrap, EVENTS, [(event["job_id"], codec.encode("job_event", event)) for event in told])
    stopped_at(settings, end_offset(settings, schedule_topic(settings.domain), 0))
    anew = start_role("streams", "begin-anew", "--domain", settings.domain)
    assert anew.process is not None
    assert anew.process.wait(30) == 0, anew.log()
    start_role("streams", "scheduler", **RECONCILE)

    def handed_in() -> dict[str, Record]:
        slots.beat(0, state="idle")
        return {e["ready"]["job_id"]: e["ready"] for e in entries(settings, codec, "stage_ready")}

    open_jobs = {waits["job_id"], runs["job_id"]}
    wait_until(lambda: open_jobs <= set(handed_in()), "open jobs were handed in", 60)
    found = handed_in()
    assert ended["job_id"] not in found
    assert (found[waits["job_id"]]["stage"], found[waits["job_id"]]["artefacts"]) == ("generate", [])
    assert (found[runs["job_id"]]["stage"], found[runs["job_id"]]["artefacts"]) == ("retopology", [ARTEFACT])
    shares = [e["tenant"] for e in entries(settings, codec, "tenant_changed")]
    assert shares[-1] == {"user_id": user, "tier": "enterprise", "weight": 2.0, "max_running": None}

    def fenced() -> bool:
        slots.beat(0, state="idle")
        return repairs(settings, codec).get("slot-0", {}).get("repair") == "stranger_fenced"

    wait_until(fenced, "the slot that nobody knows was fenced", 30)
    slots.beat(0, state="stopping")  # as a worker that has noticed
    again = Slots(settings, codec, count=1, epoch=2)
    wait_until(lambda: again.work(random.Random(3)) > 0, "the slot that joined again got work", 20)
    again.close()
    anew.start()
    assert anew.process.wait(30) == 1
    assert "stop it" in anew.log(), "refused while the scheduler runs"


def stopped_at(settings: KafkaSettings, offset: int) -> None:
    """Leaves the scheduler's group as one that has read so far."""
    consumer = Consumer(consumer_config(settings, scheduler_group(settings.domain)))
    place = TopicPartition(schedule_topic(settings.domain), 0, offset)
    consumer.commit(offsets=[place], asynchronous=False)
    consumer.close()
