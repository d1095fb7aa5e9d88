"""A scheduler with 100,000 queued jobs is killed and comes back: how long until it dispatches again, in what memory."""

import json
import re
import time
import uuid
from collections.abc import Callable

import psutil
import pytest
from confluent_kafka import Producer

from schemas.codec import Codec
from schemas.topics import schedule_topic
from streams.agents.groups import scheduler_group
from streams.kafka.consumer import committed_offset
from streams.kafka.producer import producer_config
from streams.kafka.settings import KafkaSettings
from tests.integration.streams.played_slots import Slots
from tests.support.roles import Role, wait_until
from tests.support.world import ready

JOBS = 100_000
USERS = 5_000
BATCH = 200
BACK_SECONDS = 30.0
REQUEST = bytes(300)


def submit_many(settings: KafkaSettings, codec: Codec) -> int:
    """The jobs, many in a record as admission sends them; returns the offset after them."""
    producer = Producer(producer_config(settings, linger_ms=20))
    offsets: list[int] = []
    for first in range(0, JOBS, BATCH):
        entries = [
            {
                "kind": "stage_ready",
                "at": 2,
                "ready": ready(str(uuid.uuid4()), f"user-{number % USERS}", request=REQUEST),
            }
            for number in range(first, first + BATCH)
        ]
        value = codec.encode("inbox_batch", {"entries": entries})
        producer.produce(
            schedule_topic(settings.domain), value=value, on_delivery=lambda _, m: offsets.append(m.offset() or 0)
        )
        producer.poll(0)
    assert producer.flush(60) == 0
    return max(offsets) + 1


def back_after_kill(scheduler: Role, slots: Slots) -> float:
    """kill -9, a slot's work ends meanwhile, start: seconds until work is dispatched that was not before."""
    scheduler.kill()
    slots.work(None)
    done = slots.seen[0].pop(0)
    settled = {
        "job_id": done["job_id"], "stage": done["stage"], "attempt": done["attempt"], "slot": 0, "epoch": slots.epoch,
        "outcome": "succeeded", "error_class": None, "gpu_seconds": 1.0, "artefacts": [],
    }  # fmt: skip
    slots.append(0, {"kind": "stage_settled", "at": 3, "settled": settled})
    began = time.monotonic()
    scheduler.start()
    wait_until(lambda: slots.work(None) > 0, "work was dispatched after the kill", 120)
    return time.monotonic() - began


def recovered(log: str) -> dict[str, int]:
    """What the newest life said of its recovery."""
    found: dict[str, int] = json.loads(re.findall(r'\{[^{}]*"event": "scheduler_recovered"[^{}]*\}', log)[-1])
    return found


@pytest.mark.soak
@pytest.mark.parametrize("entries", [1_000_000, 40_000], ids=["without a snapshot", "from a snapshot"])
def test_back_within_thirty_seconds_at_100_000_queued_jobs(
    settings: KafkaSettings, codec: Codec, start_role: Callable[..., Role], entries: int
) -> None:
    env = {"MESHYARD_SNAPSHOT_ENTRIES": str(entries), "MESHYARD_SLOT_GRACE_SECONDS": "600"}
    scheduler = start_role("streams", "scheduler", **env)
    slots = Slots(settings, codec, count=4)
    end = submit_many(settings, codec)
    group, topic = scheduler_group(settings.domain), schedule_topic(settings.domain)
    wait_until(lambda: (committed_offset(settings, group, topic, 0) or 0) >= end, "all jobs were folded", 120)
    seconds = back_after_kill(scheduler, slots)
    life = recovered(scheduler.log())
    assert scheduler.process is not None
    rss = psutil.Process(scheduler.process.pid).memory_info().rss
    held = [int(ms) for ms in re.findall(r'"held_ms": (\d+)', scheduler.log())]
    print(f"back after {seconds:.1f} s, {life['folded']} records folded, {rss / 1e6:.0f} MB, snapshots held {held} ms")
    assert life["jobs"] == JOBS
    assert (life["snapshot"] > 0) == (entries < JOBS)
    assert seconds < BACK_SECONDS
    assert max(held, default=0) < 2_000
    slots.close()
