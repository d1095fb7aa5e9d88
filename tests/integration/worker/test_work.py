"""One healthy worker, everything that may happen to its work. The test plays the scheduler."""

import json
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

from inference.transactions import work_group
from schemas.codec import Record
from schemas.topics import work_topic
from streams.objects import ObjectStore
from tests.integration.worker.yard import STAGES, WAIT_SECONDS, Yard

SLOT = 2
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(scope="module")
def epoch(yard: Yard) -> Iterator[int]:
    """A worker on slot 2 that has joined; its epoch."""
    with yard.worker(SLOT) as process:
        yield yard.joined(SLOT)
        assert process.poll() is None, "the worker ended during the tests"


def test_a_slot_joins_with_what_it_serves(yard: Yard, epoch: int) -> None:
    (joined,) = [entry["slot"] for entry in yard.entries("slot_joined") if entry["slot"]["slot"] == SLOT]
    assert joined == {
        "slot": SLOT,
        "epoch": epoch,
        "pool": "test",
        "resource_class": "cpu",
        "serves": [f"synthetic/{stage}" for stage in STAGES],
        "versions": [],
        "capacity": 1,
    }


def test_three_stages_make_a_job(yard: Yard, epoch: int) -> None:
    job_id: str | None = None
    artefacts: list[Record] = []
    transitions: list[str] = []
    for stage in STAGES:
        item = yard.item(stage, job_id=job_id, artefacts=artefacts, traceparent=TRACE)
        job_id = item["job_id"]
        yard.dispatch(SLOT, epoch, item)
        settled = yard.settled(item)
        assert (settled["outcome"], settled["epoch"], settled["error_class"]) == ("succeeded", epoch, None)
        assert [artefact["role"] for artefact in settled["artefacts"]] == ["result"]
        artefacts = artefacts + settled["artefacts"]
        transitions += ["started", "stage_succeeded"]
    transitions.append("succeeded")
    # `started` comes from another producer than the rest, so only the order within each is given.
    assert sorted(yard.transitions(item, len(transitions))) == sorted(transitions)

    events = [event for event in yard.events.seen if event["job_id"] == job_id]
    assert {event["traceparent"] for event in events} == {TRACE}
    assert all(event["wait_seconds"] >= 0.5 for event in events if event["transition"] == "started")
    assert [e["artefacts"] for e in events if e["transition"] == "succeeded"] == [[]]
    assert len({event["event_id"] for event in events}) == len(events)

    store = ObjectStore(f"file://{yard.folder}/objects")
    manifest = json.loads(store.get(f"{job_id}/texture/1/manifest.json"))
    assert manifest["inputs"] == artefacts[:2]
    assert manifest["artefacts"] == artefacts[2:]
    result = json.loads(store.get(store.key_of(artefacts[2]["uri"])))
    assert (result["stage"], result["inputs"]) == ("texture", ["result"])
    scratch = Path(yard.folder, "data", "scratch", f"slot-{SLOT}")
    assert not [path for path in scratch.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("parameters", "attempt", "error_class", "transitions"),
    [
        ({"fail": "transient:generate:1"}, 1, "transient", ["stage_failed"]),
        ({"fail": "transient:generate:*"}, 3, "transient", ["stage_failed", "failed"]),
        ({"fail": "permanent:generate:1"}, 1, "permanent", ["stage_failed", "failed"]),
        ({"seconds": "soon"}, 1, "invalid", ["stage_failed", "failed"]),
        ({"fail": "crash:generate:1"}, 1, "crash", ["stage_failed"]),
    ],
)
def test_failures_end_as_their_class_says(
    yard: Yard, epoch: int, parameters: dict[str, str], attempt: int, error_class: str, transitions: list[str]
) -> None:
    item = yard.item(attempt=attempt, parameters=parameters)
    yard.dispatch(SLOT, epoch, item)
    settled = yard.settled(item)
    assert (settled["outcome"], settled["error_class"], settled["attempt"]) == ("failed", error_class, attempt)
    assert [t for t in yard.transitions(item, len(transitions) + 1) if t != "started"] == transitions


def test_a_crash_costs_a_child_and_nothing_else(yard: Yard, epoch: int) -> None:
    crashing, following = yard.item(parameters={"fail": "crash:generate:*"}), yard.item()
    yard.dispatch(SLOT, epoch, crashing, following)
    assert yard.settled(crashing)["error_class"] == "crash"
    assert yard.settled(following)["outcome"] == "succeeded"


def test_a_running_item_is_canceled(yard: Yard, epoch: int) -> None:
    item = yard.item(parameters={"seconds": "60"})
    yard.dispatch(SLOT, epoch, item)
    yard.transitions(item, 1)
    yard.dispatch(SLOT, epoch, cancel=(item,))
    assert yard.settled(item)["outcome"] == "canceled"
    assert yard.transitions(item, 2) == ["started", "canceled"]


def test_a_cancel_may_come_before_its_item_and_after_its_end(yard: Yard, epoch: int) -> None:
    early, late = yard.item(parameters={"seconds": "60"}), yard.item()
    yard.dispatch(SLOT, epoch, cancel=(early,))
    yard.dispatch(SLOT, epoch, early, late)
    assert yard.settled(early)["outcome"] == "canceled"
    assert yard.settled(late)["outcome"] == "succeeded"
    yard.dispatch(SLOT, epoch, cancel=(late,))
    marker = yard.item()
    yard.dispatch(SLOT, epoch, marker)
    yard.settled(marker)
    assert yard.transitions(early, 1) == ["canceled"]
    assert sorted(yard.transitions(late, 2)) == ["stage_succeeded", "started"]


def test_repeats_old_epochs_and_other_slots_are_ignored(yard: Yard, epoch: int) -> None:
    item, old, foreign, marker = yard.item(), yard.item(), yard.item(), yard.item()
    yard.dispatch(SLOT, epoch - 1, old)
    yard.dispatch(SLOT, epoch, item, item)
    yard.dispatch(SLOT, epoch, item)
    yard.dispatch(SLOT, epoch - 1, cancel=(marker,))
    foreign_batch = {"slot": SLOT + 1, "epoch": epoch, "items": [foreign], "controls": []}
    yard.dispatch_raw(SLOT, yard.codec.encode("work_batch", foreign_batch))
    yard.dispatch(SLOT, epoch, marker)
    assert yard.settled(marker)["outcome"] == "succeeded"
    settled = [entry["settled"]["job_id"] for entry in yard.entries("stage_settled")]
    assert settled.count(item["job_id"]) == 1
    assert old["job_id"] not in settled
    assert foreign["job_id"] not in settled


def test_poison_goes_to_the_dead_letters_and_blocks_nobody(yard: Yard, epoch: int) -> None:
    poison = b"\x00\x00\x00\x00\x01nonsense"
    item = yard.item()
    yard.dispatch_raw(SLOT, poison)
    yard.dispatch(SLOT, epoch, item)
    assert yard.settled(item)["outcome"] == "succeeded"
    yard.dead.until(lambda seen: any(letter["value"] == poison for letter in seen), "dead letter")
    (letter,) = [letter for letter in yard.dead.seen if letter["value"] == poison]
    assert (letter["topic"], letter["partition"], letter["value"]) == (work_topic(yard.domain), SLOT, poison)
    assert (letter["role"], letter["attempts"]) == ("worker", 1)


def test_a_batch_is_worked_off_in_order_and_its_offset_committed(yard: Yard, epoch: int) -> None:
    items = [yard.item() for _ in range(60)]
    before = len(yard.inbox.seen)
    yard.dispatch(SLOT, epoch, *items)
    yard.settled(items[-1])
    mine = [entry["settled"]["job_id"] for entry in yard.entries("stage_settled")][-60:]
    assert mine == [item["job_id"] for item in items]
    assert len(yard.inbox.seen) - before < 60, "short results share transactions"
    deadline = time.monotonic() + WAIT_SECONDS
    while _committed(yard) != _end(yard):
        assert time.monotonic() < deadline, "the offset is not committed"


def test_progress_is_one_growing_percentage(yard: Yard, epoch: int) -> None:
    item = yard.item("texture", parameters={"seconds.texture": "1.3"})
    yard.dispatch(SLOT, epoch, item)
    yard.settled(item)
    told = [record for record in yard.progress.drain() if record["job_id"] == item["job_id"]]
    percents = [record["percent"] for record in told]
    assert percents == sorted(percents)
    assert 2 <= len(told) <= 4
    assert all(60 <= percent <= 100 for percent in percents), percents
    times = [record["at"] for record in told]
    assert all(later - sooner >= 500 for sooner, later in pairwise(times))


def test_inputs_are_verified(yard: Yard, epoch: int) -> None:
    first = yard.item()
    yard.dispatch(SLOT, epoch, first)
    good: Record = yard.settled(first)["artefacts"][0]
    cases = {
        "damaged": ({**good, "sha256": "0" * 64}, "transient"),
        "missing": ({**good, "uri": good["uri"] + "x"}, "transient"),
        "foreign": ({**good, "uri": "s3://elsewhere/file"}, "invalid"),
    }
    items = {name: yard.item("retopology", artefacts=[artefact]) for name, (artefact, _) in cases.items()}
    yard.dispatch(SLOT, epoch, *items.values())
    for name, item in items.items():
        assert yard.settled(item)["error_class"] == cases[name][1], name


def test_heartbeats_tell_what_the_slot_does(yard: Yard, epoch: int) -> None:
    item = yard.item(parameters={"seconds": "60"})
    yard.dispatch(SLOT, epoch, item)

    def busy(seen: list[Record]) -> list[Record]:
        return [beat for beat in seen if beat["epoch"] == epoch and beat["dispatch_ids"] == [item["dispatch_id"]]]

    beat = yard.heartbeats.until(busy, "busy heartbeat")[0]
    assert (beat["state"], beat["slot"], beat["pool"], beat["domain"]) == ("busy", SLOT, "test", yard.domain)
    assert beat["rss_bytes"] > 10_000_000
    assert beat["last_work_offset"] == _end(yard) - 1
    states = [b["state"] for b in yard.heartbeats.seen if b["epoch"] == epoch]
    assert states[0] == "loading"
    yard.dispatch(SLOT, epoch, cancel=(item,))
    yard.settled(item)


def _committed(yard: Yard) -> int:
    consumer = Consumer({"bootstrap.servers": yard.bootstrap, "group.id": work_group(yard.domain)})
    try:
        place = TopicPartition(work_topic(yard.domain), SLOT)
        return int(consumer.committed([place], WAIT_SECONDS)[0].offset)
    finally:
        consumer.close()


def _end(yard: Yard) -> int:
    consumer = Consumer({"bootstrap.servers": yard.bootstrap, "group.id": "yard-end"})
    try:
        return int(consumer.get_watermark_offsets(TopicPartition(work_topic(yard.domain), SLOT), WAIT_SECONDS)[1])
    finally:
        consumer.close()
