"""Deaths, fences and doubts: after each, what is visible is whole, and the slot goes on or makes room."""

import os
import signal
import subprocess
import time
from collections.abc import Callable

import psutil
import pytest
from confluent_kafka import Producer

from inference.transactions import transactional_id
from schemas.codec import Record
from schemas.topics import schedule_topic
from streams.kafka.producer import transactional_config
from tests.integration.worker.yard import WAIT_SECONDS, Reader, Yard

LONG = {"seconds": "60"}


def test_a_killed_worker_takes_its_child_along_and_its_successor_joins_anew(yard: Yard) -> None:
    slot = 10
    with yard.worker(slot) as process:
        epoch = yard.joined(slot)
        item = yard.item(parameters=LONG)
        yard.dispatch(slot, epoch, item)
        yard.transitions(item, 1)
        (child,) = psutil.Process(process.pid).children()
        process.kill()
        _until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, "death of the child")
    with yard.worker(slot) as process:
        newer = yard.joined(slot, after=epoch)
        again, old = yard.item(attempt=2, job_id=item["job_id"]), yard.item()
        yard.dispatch(slot, epoch, old)
        yard.dispatch(slot, newer, again)
        assert yard.settled(again)["epoch"] == newer
    assert _settled_attempts(yard, item) == [2]
    assert _settled_attempts(yard, old) == []


def test_a_worker_that_dies_inside_its_transaction_leaves_nothing_visible(yard: Yard) -> None:
    slot = 11
    raw = Reader(yard.bootstrap, schedule_topic(yard.domain), 1, "inbox_batch", isolation="read_uncommitted")
    with yard.worker(slot, "tests.integration.worker.faulty", FAULT="dies_before_commit") as process:
        epoch = yard.joined(slot)
        item = yard.item()
        yard.dispatch(slot, epoch, item)
        assert process.wait(WAIT_SECONDS) == -signal.SIGKILL
    raw.until(lambda seen: any(_settles(batch, item) for batch in seen), "the settlement that was never committed")
    raw.close()
    with yard.worker(slot):
        # Its successor aborts the open transaction, which would stall every reader of the inbox for 10 s and more.
        newer = yard.joined(slot, after=epoch)
        again = yard.item(attempt=2, job_id=item["job_id"])
        yard.dispatch(slot, newer, again)
        assert yard.settled(again)["outcome"] == "succeeded"
    assert _settled_attempts(yard, item) == [2]
    attempts = [e["attempt"] for e in yard.events.drain() if e["job_id"] == item["job_id"]]
    assert attempts == [2, 2], "of the first attempt, which ended at once, nothing is told"


def test_a_fenced_worker_ends_and_nothing_of_it_is_visible(yard: Yard) -> None:
    slot = 12
    with yard.worker(slot) as process:
        item = yard.item(parameters={"seconds": "1"})
        yard.dispatch(slot, yard.joined(slot), item)
        yard.transitions(item, 1)
        _fence(yard, slot)
        assert process.wait(WAIT_SECONDS) == 1
    yard.inbox.drain()
    assert _settled_attempts(yard, item) == []
    assert [e["transition"] for e in yard.events.drain() if e["job_id"] == item["job_id"]] == ["started"]


def test_a_worker_that_slept_past_its_lease_finds_out_that_it_was_given_up(yard: Yard) -> None:
    slot = 13
    with yard.worker(slot, MESHYARD_SLOT_GRACE_SECONDS="3") as process:
        item = yard.item(parameters=LONG)
        yard.dispatch(slot, yard.joined(slot), item)
        yard.transitions(item, 1)
        os.kill(process.pid, signal.SIGSTOP)
        try:
            _fence(yard, slot)
            time.sleep(3)  # longer than its lease
        finally:
            os.kill(process.pid, signal.SIGCONT)
        assert process.wait(WAIT_SECONDS) == 1, "long before its stage ends"
    yard.inbox.drain()
    assert _settled_attempts(yard, item) == []


def test_after_an_unsure_commit_a_new_life_begins_in_the_same_process(yard: Yard) -> None:
    slot = 14
    with yard.worker(slot, "tests.integration.worker.faulty", FAULT="commit_times_out") as process:
        epoch = yard.joined(slot)
        item = yard.item()
        yard.dispatch(slot, epoch, item)
        newer = yard.joined(slot, after=epoch)
        # The commit was carried out, and stands in the log before the new life: the scheduler needs no second attempt.
        assert _settled_attempts(yard, item) == [1]
        following = yard.item()
        yard.dispatch(slot, newer, following)
        assert yard.settled(following)["epoch"] == newer
        assert process.poll() is None


def test_a_stage_that_takes_too_long_is_killed(yard: Yard) -> None:
    slot = 15
    with yard.worker(slot, MESHYARD_STAGE_TIMEOUT_SECONDS="1"):
        epoch = yard.joined(slot)
        slow, quick = yard.item(parameters=LONG), yard.item()
        yard.dispatch(slot, epoch, slow, quick)
        settled = yard.settled(slow)
        assert (settled["outcome"], settled["error_class"]) == ("failed", "timeout")
        assert yard.settled(quick)["outcome"] == "succeeded"


def test_sigterm_lets_the_running_item_end_and_takes_no_more(yard: Yard) -> None:
    slot = 16
    with yard.worker(slot) as process:
        epoch = yard.joined(slot)
        running, waiting = yard.item(parameters={"seconds": "1"}), yard.item()
        yard.dispatch(slot, epoch, running, waiting)
        yard.transitions(running, 1)
        process.terminate()
        assert process.wait(WAIT_SECONDS) == 0
    assert yard.settled(running)["outcome"] == "succeeded"
    _left(yard, slot, epoch)
    assert _settled_attempts(yard, waiting) == []


def test_a_drain_has_an_end(yard: Yard) -> None:
    slot = 17
    with yard.worker(slot, MESHYARD_DRAIN_SECONDS="1") as process:
        epoch = yard.joined(slot)
        item = yard.item(parameters=LONG)
        yard.dispatch(slot, epoch, item)
        yard.transitions(item, 1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_SECONDS) == 0
    _left(yard, slot, epoch)
    assert _settled_attempts(yard, item) == []


@pytest.mark.parametrize(
    ("env", "named"),
    [
        ({"MESHYARD_OBJECTS_URL": ""}, "MESHYARD_OBJECTS_URL"),
        ({"MESHYARD_SERVES": "assembly/fly"}, "MESHYARD_SERVES"),
    ],
)
def test_bad_settings_are_named_in_one_line(yard: Yard, env: dict[str, str], named: str) -> None:
    before = (yard.folder / "worker.log").stat().st_size if (yard.folder / "worker.log").exists() else 0
    with yard.worker(18, **env) as process:
        assert process.wait(WAIT_SECONDS) == 2
    said = (yard.folder / "worker.log").read_text()[before:]
    assert said.startswith(named)
    assert said.count("\n") == 1


def _fence(yard: Yard, slot: int) -> None:
    Producer(transactional_config(yard.kafka, transactional_id(yard.domain, slot))).init_transactions(WAIT_SECONDS)


def _left(yard: Yard, slot: int, epoch: int) -> None:
    """The slot's own last entry: the scheduler need not wait for the slot monitor."""

    def find(_: list[Record]) -> bool:
        return any((e["slot"]["slot"], e["slot"]["epoch"]) == (slot, epoch) for e in yard.entries("slot_lost"))

    yard.inbox.until(find, f"slot_lost of slot {slot}")


def _settles(batch: Record, item: Record) -> bool:
    return any(e["settled"] is not None and e["settled"]["job_id"] == item["job_id"] for e in batch["entries"])


def _settled_attempts(yard: Yard, item: Record) -> list[int]:
    settled = [entry["settled"] for entry in yard.entries("stage_settled")]
    return [s["attempt"] for s in settled if s["job_id"] == item["job_id"]]


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise subprocess.TimeoutExpired(what, WAIT_SECONDS)
        time.sleep(0.02)
