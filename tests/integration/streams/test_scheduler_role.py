"""The scheduler's process on a real broker: transactions in its inbox, kill -9 at any point, snapshots."""

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer

from schemas.codec import Codec, Record
from schemas.topics import schedule_topic
from streams.agents.groups import scheduler_group
from streams.kafka.consumer import committed_offset, end_offset, read_range
from streams.kafka.producer import producer_config, transactional_config
from streams.kafka.settings import KafkaSettings
from streams.policy.decisions import Dispatch
from streams.policy.scheduler import Scheduler
from tests.integration.streams.played_slots import SLOTS, Slots, as_bytes, inbox, submit
from tests.support.roles import Role, wait_until
from tests.support.world import ready

StartRole = Callable[..., Role]


def test_kill_9_at_any_point_changes_no_decision(settings: KafkaSettings, codec: Codec, start_role: StartRole) -> None:
    """The dispatches of a scheduler that was killed three times are those of one fold over its inbox, in its order.

    Its first life starts from nothing, its last from a snapshot.
    """
    rng = random.Random(11)
    jobs = 30
    scheduler = start_role("streams", "scheduler", MESHYARD_SNAPSHOT_ENTRIES="25", MESHYARD_SLOT_GRACE_SECONDS="600")
    slots = Slots(settings, codec)
    submit(settings, codec, jobs)
    kill_at = [12, 35, 70]

    def finished() -> bool:
        slots.work(rng)
        total = sum(len(items) for items in slots.seen.values())
        if kill_at and total >= kill_at[0]:
            kill_at.pop(0)
            scheduler.kill()
            scheduler.start()
        ends = {i["job_id"] for items in slots.seen.values() for i in items if i["stage"] == "texture"}
        return len(ends) == jobs and slots.work(rng) == 0

    wait_until(finished, "all jobs reached their last stage", 90)
    assert kill_at == []
    slots.close()
    assert scheduler.stop() == 0
    expected = fold(inbox(settings, codec), settings.domain)
    for slot in range(SLOTS):
        assert [i["dispatch_id"] for i in slots.seen[slot]] == [i["dispatch_id"] for i in expected[slot]]
        assert slots.seen[slot] == expected[slot]
    starts = [life["snapshot"] for life in recoveries(scheduler.log())]
    assert starts[0] == 0
    assert starts[-1] > 0


def recoveries(log: str) -> list[dict[str, Any]]:
    """What each life said of its recovery."""
    # By object, not by line: a life that was killed may have left its last line without an end.
    return [json.loads(found) for found in re.findall(r'\{[^{}]*"event": "scheduler_recovered"[^{}]*\}', log)]


def fold(records: list[tuple[int, Record]], domain: str) -> dict[int, list[dict[str, Any]]]:
    """What one uninterrupted scheduler dispatches, by slot."""
    scheduler = Scheduler(domain)
    found: dict[int, list[dict[str, Any]]] = {slot: [] for slot in range(SLOTS)}
    for offset, record in records:
        for decision in scheduler.apply(offset, record):
            if isinstance(decision, Dispatch):
                found[decision.slot].append(decision.item)
    return found


def test_commits_keep_up_behind_transactions(settings: KafkaSettings, codec: Codec, start_role: StartRole) -> None:
    """600 transactions, one in seven aborted: what was aborted never happened, and the group's offset follows."""
    topic = schedule_topic(settings.domain)
    scheduler = start_role("streams", "scheduler")
    producer = Producer(transactional_config(settings, f"gaps-{settings.domain}"))
    producer.init_transactions(30)
    for number in range(600):
        producer.begin_transaction()
        entry = {"kind": "stage_ready", "at": 2, "ready": ready(f"job-{number}", "user")}
        producer.produce(topic, value=codec.encode("inbox_batch", {"entries": [entry]}))
        if number % 7 == 3:
            producer.flush(10)
            producer.abort_transaction(10)
        else:
            producer.commit_transaction(10)
    end = end_offset(settings, topic, 0)

    def caught_up() -> bool:
        # The last offset of the transactions is a marker, which nobody can acknowledge; ticks stand after it.
        return (committed_offset(settings, scheduler_group(settings.domain), topic, 0) or 0) >= end

    wait_until(caught_up, "the committed offset passed the transactions", 20)
    assert scheduler.stop() == 0
    folded = Scheduler(settings.domain)
    for offset, record in inbox(settings, codec):
        folded.apply(offset, record)
    assert len(folded.state.jobs) == sum(number % 7 != 3 for number in range(600))
    scheduler.start()
    wait_until(lambda: len(recoveries(scheduler.log())) == 2, "the next life recovered")
    assert recoveries(scheduler.log())[-1]["jobs"] == len(folded.state.jobs)


def test_poison_goes_to_the_dead_letters_and_blocks_nobody(
    settings: KafkaSettings, codec: Codec, start_role: StartRole, tmp_path: Path
) -> None:
    start_role("streams", "scheduler", "--domain", settings.domain, MESHYARD_DOMAIN="another")
    slots = Slots(settings, codec)
    producer = Producer(producer_config(settings))
    for value in (b"", b"\x01junk", b"\x00\x00\x00\x00\x06\xff", codec.encode("admission_tick", {"ticked_at": 1})):
        producer.produce(schedule_topic(settings.domain), value=value)
    producer.flush(10)
    submit(settings, codec, 1)
    rng = random.Random(1)
    wait_until(lambda: slots.work(rng) > 0, "work behind the poison was dispatched")
    topic = schedule_topic(settings.domain)
    dead = [
        codec.decode_large(as_bytes(m.value()))
        for m in read_range(settings, "jobs.dead", 0, end=end_offset(settings, "jobs.dead", 0))
    ]
    reasons = [letter["reason"] for letter in dead if letter["topic"] == topic]
    slots.close()
    assert reasons == ["empty", "wrong_magic_byte", "truncated", "unexpected_schema"]


def test_a_silent_slot_is_fenced_and_its_work_goes_elsewhere(
    settings: KafkaSettings, codec: Codec, start_role: StartRole
) -> None:
    """No heartbeat within the grace: what the old process commits afterwards fails, then another slot gets the task."""
    start_role("streams", "scheduler", MESHYARD_SLOT_GRACE_SECONDS="2")
    slots = Slots(settings, codec, count=1)  # it joins and never sends a heartbeat
    submit(settings, codec, 1)

    def lost() -> list[int]:
        return [e["slot"]["slot"] for _, r in inbox(settings, codec) for e in r["entries"] if e["kind"] == "slot_lost"]

    wait_until(lambda: lost() == [0], "the silent slot was declared lost", 30)
    with pytest.raises(KafkaException) as refused:
        slots.append(0, {"kind": "tick", "at": 5})
    assert refused.value.args[0].code() == KafkaError._FENCED
    again = Slots(settings, codec, count=1, epoch=2)
    rng = random.Random(1)
    wait_until(lambda: again.work(rng) > 0, "the lost task was dispatched again")
    assert (again.seen[0][0]["stage"], again.seen[0][0]["attempt"]) == ("generate", 2)
    slots.close()
    again.close()
