"""`meshyard simulate --inbox` on a run that a real scheduler made on a real broker, killed in its middle."""

import json
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from gateway.cli.__main__ import main
from schemas.codec import Codec, Record
from schemas.topics import schedule_topic, work_topic
from streams.agents.groups import scheduler_group
from streams.kafka.consumer import consumer_config, end_offset
from streams.kafka.producer import producer_config
from streams.kafka.settings import KafkaSettings
from tests.integration.streams.played_slots import SLOTS, Slots
from tests.support.roles import Role, wait_until
from tests.support.world import ready

StartRole = Callable[..., Role]
JOBS = 40


@pytest.fixture
def installation(env: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The command runs in this process, on the test's installation."""
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("COLUMNS", "200")


class TimedSlots(Slots):
    """Writes at the time it is, so that costs can be read from the recording."""

    def append(self, slot: int, entry: Record, *, commit: bool = True) -> None:
        super().append(slot, {**entry, "at": time.time_ns() // 1_000_000}, commit=commit)


def send(settings: KafkaSettings, codec: Codec, jobs: int) -> None:
    """Jobs of three users, now."""
    producer = Producer(producer_config(settings))
    for number in range(jobs):
        at = time.time_ns() // 1_000_000
        entry = {"kind": "stage_ready", "at": at, "ready": ready(f"job-{number}", f"user-{number % 3}")}
        producer.produce(schedule_topic(settings.domain), value=codec.encode("inbox_batch", {"entries": [entry]}))
    producer.flush(10)


def record_a_run(settings: KafkaSettings, codec: Codec, start_role: StartRole) -> float:
    """Jobs of three users, the scheduler killed while it works; the time in the middle, after a snapshot."""
    rng = random.Random(4)
    scheduler = start_role("streams", "scheduler", MESHYARD_SNAPSHOT_ENTRIES="60", MESHYARD_SLOT_GRACE_SECONDS="600")
    slots = TimedSlots(settings, codec)
    send(settings, codec, JOBS)
    middle: list[float] = []

    def finished() -> bool:
        slots.work(rng)
        total = sum(len(items) for items in slots.seen.values())
        if not middle and total >= 70:
            middle.append(time.time())
            scheduler.kill()
            scheduler.start()
        ends = {i["job_id"] for items in slots.seen.values() for i in items if i["stage"] == "texture"}
        return len(ends) == JOBS and slots.work(rng) == 0

    wait_until(finished, "all jobs reached their last stage", 150)
    slots.close()
    assert scheduler.stop() == 0
    return middle[0]


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("installation")
def test_a_recorded_run_is_replayed(
    settings: KafkaSettings,
    codec: Codec,
    start_role: StartRole,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The whole run from the inbox's beginning, its end from a snapshot, then what six slots would have done."""
    middle = record_a_run(settings, codec, start_role)
    figures = tmp_path / "figures.json"
    replay = ["simulate", "--inbox", settings.domain, "--json", str(figures)]

    assert main([*replay, "--from", "1h"]) == 0
    whole = json.loads(figures.read_text())
    out = capsys.readouterr().out
    assert "from its beginning" in out
    assert f"{whole['dispatches']} dispatches, identical" in out
    assert whole["dispatches"] >= 3 * JOBS

    since = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(middle + 1))
    assert main([*replay, "--from", since, "--to", "0s"]) == 0
    late = json.loads(figures.read_text())
    out = capsys.readouterr().out
    assert "from the snapshot before offset" in out
    assert 0 < late["dispatches"] < whole["dispatches"]

    policy = tmp_path / "policy.toml"
    policy.write_text("affinity_gpu_seconds = 0.0\n[tiers.free]\nmax_running = 64\n")
    picture = tmp_path / "waits.svg"
    told = ["--weights", str(policy), "--slots", str(2 * SLOTS), "--plot", str(picture)]
    assert main([*replay, "--from", "1h", *told]) == 0
    sides = json.loads(figures.read_text())
    out = capsys.readouterr().out
    assert "counterfactual" in out
    assert picture.stat().st_size > 5_000
    recorded, other = sides["recorded"]["all"]["all"], sides["counterfactual"]["all"]["all"]
    assert recorded["jobs"] == other["jobs"] == JOBS
    assert recorded["started"] == other["started"] == JOBS
    assert other["p90"] < recorded["p90"]


@pytest.mark.usefixtures("installation")
def test_work_that_the_inbox_does_not_explain_is_told(
    settings: KafkaSettings, codec: Codec, capsys: pytest.CaptureFixture[str]
) -> None:
    """An inbox with a slot and a job, and a work topic without their dispatch."""
    slots = Slots(settings, codec, count=1)
    slots.close()
    send(settings, codec, 1)
    producer = Producer(producer_config(settings))
    stranger = {"slot": 0, "epoch": 1, "items": [], "controls": []}
    producer.produce(work_topic(settings.domain), value=codec.encode("work_batch", stranger), partition=0)
    producer.flush(10)
    commit_all(settings)
    assert main(["simulate", "--inbox", settings.domain, "--from", "1h"]) == 1
    captured = capsys.readouterr()
    assert "slot 0: job-0/generate/1 was never sent to it" in captured.out
    assert "1 dispatches replayed, 1 slots differ" in captured.err


@pytest.mark.usefixtures("installation")
@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--from", "1h"], "holds nothing"),
        (["--from", "yesterday"], "--from"),
        (["--from", "1h", "--to", "noon"], "--to"),
        (["--from", "1h", "--slots", "0"], "--slots"),
        (["--from", "1h", "--weights", "/absent.toml"], "--weights"),
        ([], "--from"),
    ],
)
def test_what_cannot_be_replayed_is_one_line(
    settings: KafkaSettings, options: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["simulate", "--inbox", settings.domain, *options]) in (1, 2)
    error = capsys.readouterr().err
    assert named in error
    assert error.count("\n") == 1


@pytest.mark.usefixtures("installation", "settings")
def test_a_domain_that_is_not_there_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--inbox", "nowhere", "--from", "1h"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("meshyard simulate: ")
    assert error.count("\n") == 1


def commit_all(settings: KafkaSettings) -> None:
    """As a scheduler that has done everything would."""
    topic = schedule_topic(settings.domain)
    config: dict[str, Any] = consumer_config(settings, scheduler_group(settings.domain))
    consumer = Consumer(config)
    consumer.commit(offsets=[TopicPartition(topic, 0, end_offset(settings, topic, 0))], asynchronous=False)
    consumer.close()
