"""A slot that takes several tasks at once: each has its own end, many ends share a transaction."""

import time
from collections.abc import Iterator
from itertools import groupby

import pytest

from schemas.codec import Record
from schemas.topics import DEAD, requests_topic
from tests.integration.worker.yard import WAIT_SECONDS, Yard

SLOT = 5
CAPACITY = 32


@pytest.fixture(scope="module")
def epoch(yard: Yard) -> Iterator[int]:
    """A worker with room for many on slot 5."""
    with yard.worker(SLOT, MESHYARD_CAPACITY=str(CAPACITY)) as process:
        yield yard.joined(SLOT)
        assert process.poll() is None, "the worker ended during the tests"


def test_it_says_how_many_it_takes(yard: Yard, epoch: int) -> None:
    (joined,) = [entry["slot"] for entry in yard.entries("slot_joined") if entry["slot"]["slot"] == SLOT]
    assert joined["capacity"] == CAPACITY


def test_all_outcomes_at_once_in_few_transactions(yard: Yard, epoch: int) -> None:
    failures = ("transient", "oom", "overload", "permanent", "rate_limited/4.5")
    good = [yard.item() for _ in range(16)]
    bad = [yard.item(parameters={"fail": f"{what}:generate:1"}) for what in failures]
    before = len(yard.inbox.seen)
    yard.dispatch(SLOT, epoch, *good, *bad)
    for item in good:
        assert yard.settled(item)["outcome"] == "succeeded"
    for item, what in zip(bad, failures, strict=True):
        settled = yard.settled(item)
        kind, _, wait = what.partition("/")
        assert (settled["outcome"], settled["error_class"]) == ("failed", kind)
        assert settled["retry_after_seconds"] == (float(wait) if wait else None)
        assert settled["run_seconds"] == settled["gpu_seconds"] < 1.0
        over = ["failed"] if kind == "permanent" else []
        assert yard.transitions(item, 2 + len(over)) == ["started", "stage_failed", *over]
    assert len(yard.inbox.seen) - before <= 4
    for item in good:
        assert yard.transitions(item, 2) == ["started", "stage_succeeded"], "in one transaction, so in order"


def test_a_job_that_failed_for_good_leaves_a_dead_letter(yard: Yard, epoch: int) -> None:
    first = yard.item()
    yard.dispatch(SLOT, epoch, first)
    artefacts = yard.settled(first)["artefacts"]
    fail = {"fail": "oom:retopology:*"}
    item = yard.item("retopology", attempt=3, job_id=first["job_id"], artefacts=artefacts, parameters=fail)
    yard.dispatch(SLOT, epoch, item)
    assert yard.settled(item)["error_class"] == "oom"
    letters = [letter for letter in _letters(yard, 1, item) if letter["job"]["job_id"] == item["job_id"]]
    (letter,) = letters
    assert letter["topic"] == requests_topic("text-to-3d")
    assert (letter["partition"], letter["offset"], letter["attempts"], letter["role"]) == (-1, -1, 3, "worker")
    assert (letter["reason"], letter["value"], letter["key"]) == ("oom", item["request"], b"user-1")
    assert letter["job"] == {
        "job_id": item["job_id"],
        "user_id": "user-1",
        "stage": "retopology",
        "error_class": "oom",
        "artefacts": artefacts,
        "traceparent": item["traceparent"],
    }
    message = yard.dead.messages[yard.dead.seen.index(letter)]
    assert (message.topic(), message.key()) == (DEAD, item["job_id"].encode())


def test_events_tell_what_the_job_is_to_its_user_and_what_load_took_away(yard: Yard, epoch: int) -> None:
    fields: Record = {"tier": "enterprise", "lane": "interactive", "priority": 2, "retry_of": "job-0"}
    item = yard.item("texture", adjustments=["quality: high -> draft"], texture_size=512, **fields)
    yard.dispatch(SLOT, epoch, item)
    yard.settled(item)
    yard.transitions(item, 3)
    events = [event for event in yard.events.seen if event["job_id"] == item["job_id"]]
    assert [event["transition"] for event in events] == ["started", "stage_succeeded", "succeeded"]
    for event in events:
        assert {name: event[name] for name in fields} == fields
        assert (event["adjustments"], event["workflow"]) == (["quality: high -> draft"], "text-to-3d")


def test_sleeping_items_overlap_and_any_of_them_is_canceled(yard: Yard, epoch: int) -> None:
    long = [yard.item(parameters={"seconds": "60"}) for _ in range(3)]
    short = [yard.item(parameters={"seconds": "0.5"}) for _ in range(20)]
    began = time.monotonic()
    yard.dispatch(SLOT, epoch, *long, *short)
    for item in short:
        assert 0.5 <= yard.settled(item)["gpu_seconds"] < 5.0
    assert time.monotonic() - began < 9.0, "one after another they take 10 s"
    quick = yard.item()
    yard.dispatch(SLOT, epoch, quick, cancel=(long[1],))
    assert yard.settled(quick)["outcome"] == "succeeded"
    assert yard.settled(long[1])["outcome"] == "canceled"
    assert not [e for e in yard.entries("stage_settled") if e["settled"]["job_id"] in (long[0]["job_id"],)]
    yard.dispatch(SLOT, epoch, cancel=(long[0], long[2]))
    for item in (long[0], long[2]):
        assert yard.settled(item)["outcome"] == "canceled"


def test_a_crash_fails_one_and_the_others_go_on(yard: Yard, epoch: int) -> None:
    crash = yard.item(parameters={"fail": "crash:generate:1"})
    others = [yard.item(parameters={"seconds": "0.2"}), *(yard.item() for _ in range(4))]
    yard.dispatch(SLOT, epoch, *others[:3], crash, *others[3:])
    assert yard.settled(crash)["error_class"] == "crash"
    for item in others:
        settled = yard.settled(item)
        assert (settled["outcome"], settled["attempt"]) == ("succeeded", 1)
        assert yard.transitions(item, 2) == ["started", "stage_succeeded"]


def test_all_that_is_not_settled_stands_in_the_heartbeat(yard: Yard, epoch: int) -> None:
    items = [yard.item(parameters={"seconds": "60"}) for _ in range(CAPACITY + 3)]
    yard.dispatch(SLOT, epoch, *items)
    names = sorted(item["dispatch_id"] for item in items)
    yard.heartbeats.until(lambda seen: any(sorted(b["dispatch_ids"]) == names for b in seen), "heartbeat with all")
    yard.dispatch(SLOT, epoch, cancel=tuple(items))
    for item in items:
        assert yard.settled(item)["outcome"] == "canceled"


def test_a_drain_settles_what_ends_in_time_and_leaves_the_rest(yard: Yard) -> None:
    slot = 6
    with yard.worker(slot, MESHYARD_CAPACITY="8", MESHYARD_DRAIN_SECONDS="4") as process:
        epoch = yard.joined(slot)
        ends = [yard.item(parameters={"seconds": "1.5"}) for _ in range(3)]
        stays = [yard.item(parameters={"seconds": "60"}) for _ in range(2)]
        yard.dispatch(slot, epoch, *ends, *stays)
        for item in (*ends, *stays):
            yard.transitions(item, 1)
        process.terminate()
        assert process.wait(WAIT_SECONDS) == 0
    for item in ends:
        assert yard.settled(item)["outcome"] == "succeeded"

    def find(_: list[Record]) -> bool:
        return any((e["slot"]["slot"], e["slot"]["epoch"]) == (slot, epoch) for e in yard.entries("slot_lost"))

    yard.inbox.until(find, "slot_lost, so that the rest gets another attempt")
    settled = {entry["settled"]["job_id"] for entry in yard.entries("stage_settled")}
    assert not settled & {item["job_id"] for item in stays}


def test_a_batch_larger_than_the_slot_is_worked_off_in_order(yard: Yard, epoch: int) -> None:
    items = [yard.item() for _ in range(3 * CAPACITY)]
    yard.dispatch(SLOT, epoch, *items[:CAPACITY])
    yard.dispatch(SLOT, epoch, *items[CAPACITY:])
    yard.settled(items[-1])
    names = [item["job_id"] for item in items]
    mine = [e["settled"]["job_id"] for e in yard.entries("stage_settled") if e["settled"]["job_id"] in set(names)]
    assert [name for name, _ in groupby(mine)] == names


def _letters(yard: Yard, count: int, item: Record) -> list[Record]:
    def find(seen: list[Record]) -> list[Record] | None:
        mine = [letter for letter in seen if letter["job"] is not None and letter["job"]["job_id"] == item["job_id"]]
        return mine if len(mine) >= count else None

    found: list[Record] = yard.dead.until(find, f"dead letter of {item['job_id']}")
    return found
