"""What stands beside the scheduler: reconciler, slot monitor, routing relay; its policy file and its own ticks."""

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from schemas.codec import Codec, Record
from schemas.events import dispatch_id
from schemas.topics import ROUTING
from streams.kafka.settings import KafkaSettings
from tests.integration.streams.played_slots import Slots, entries, every_repair, submit
from tests.support.kafka import produce
from tests.support.roles import Role, wait_until

StartRole = Callable[..., Role]
WORKFLOW = "text-to-3d"
RECONCILE = {"MESHYARD_RECONCILE_SECONDS": "1", "MESHYARD_RECONCILE_AFTER_SECONDS": "1"}


@pytest.fixture
def slots(settings: KafkaSettings, codec: Codec) -> Iterator[Slots]:
    """One slot of the domain, joined."""
    found = Slots(settings, codec, count=1)
    yield found
    found.close()


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def test_a_slot_that_does_not_have_its_work_is_fenced(
    settings: KafkaSettings, codec: Codec, start_role: StartRole
) -> None:
    """Two slots read their work; one of them names it in its heartbeats, the other does not."""
    start_role("streams", "scheduler", **RECONCILE)
    slots = Slots(settings, codec, count=2)
    submit(settings, codec, 2)

    def fenced() -> bool:
        slots.work(None)
        for slot, items in slots.seen.items():
            names = [dispatch_id(item["job_id"], item["stage"], item["attempt"]) for item in items]
            slots.beat(slot, names if slot == 0 else [])
        return bool(entries(settings, codec, "slot_lost"))

    wait_until(fenced, "the slot without its work was declared lost", 40)
    assert [e["slot"]["slot"] for e in entries(settings, codec, "slot_lost")] == [1]
    lost = slots.seen[1][0]
    told = [detail for subject, detail in every_repair(settings, codec) if subject == "slot-1"]
    # Its heartbeats go on until it is told, and are then a stranger's.
    [detail] = [detail for detail in told if detail["repair"] == "slot_fenced"]
    assert detail["dispatches"] == dispatch_id(lost["job_id"], "generate", 1)
    with pytest.raises(KafkaException) as refused:
        slots.append(1, {"kind": "tick", "at": 5})
    assert refused.value.args[0].code() == KafkaError._FENCED
    rng = random.Random(1)

    def again() -> bool:
        for item in [item for item in slots.seen[0] if item["job_id"] != lost["job_id"]][:1]:
            slots.seen[0].remove(item)  # the other slot ends its own work and gets this one
            slots.settle(0, item, rng)
        slots.work(None)
        return any(item["job_id"] == lost["job_id"] and item["attempt"] == 2 for item in slots.seen[0])

    wait_until(again, "the lost work was dispatched to the other slot", 20)
    slots.close()


def test_a_slot_that_stops_gets_nothing_new(
    settings: KafkaSettings, codec: Codec, start_role: StartRole, slots: Slots
) -> None:
    start_role("streams", "scheduler")

    def reported() -> bool:
        slots.beat(0, state="stopping")
        return bool(entries(settings, codec, "slot_report"))

    wait_until(reported, "the draining slot was reported", 20)
    submit(settings, codec, 1)
    wait_until(lambda: len(entries(settings, codec, "tick")) >= 3, "the scheduler read on", 20)
    assert slots.work(None) == 0
    (report,) = entries(settings, codec, "slot_report")
    assert report["report"] == {
        "slot": 0, "epoch": 1, "draining": True, "dispatch_ids": [], "last_work_offset": -1
    }  # fmt: skip


def rule(revision: int) -> Record:
    return {
        "name": "synthetic/texture", "pipeline_id": "synthetic", "stage": "texture", "experiment": "e",
        "arms": [{"model_version": "1", "weight": 1.0}], "stable": "1", "guard": None, "revision": revision,
        "changed_by": "test", "reason": "", "changed_at": 1,
    }  # fmt: skip


def test_routing_rules_reach_the_inbox_once(settings: KafkaSettings, codec: Codec, start_role: StartRole) -> None:
    """Also over a restart, in which the whole topic is read again; older revisions are not handed on."""

    def relayed() -> list[int]:
        revisions = [e["routing"]["revision"] for e in entries(settings, codec, "routing_changed")]
        return [revision for revision in revisions if revision >= first]

    first = now_ms()  # tests share the topic
    role = start_role("streams", "scheduler")
    for revision in (first, first + 1, first):
        produce(settings.bootstrap, ROUTING, [(rule(0)["name"], codec.encode("routing_rule", rule(revision)))])
    wait_until(lambda: relayed() == [first, first + 1], "both revisions were handed on", 20)
    assert role.stop() == 0
    role.start()
    produce(settings.bootstrap, ROUTING, [(rule(0)["name"], codec.encode("routing_rule", rule(first + 2)))])
    wait_until(lambda: first + 2 in relayed(), "the new revision was handed on", 20)
    assert relayed() == [first, first + 1, first + 2]


def test_a_changed_policy_file_is_an_entry_of_the_inbox(
    settings: KafkaSettings, codec: Codec, start_role: StartRole, tmp_path: Path
) -> None:
    file = tmp_path / "policy.toml"
    file.write_text("[tiers.free]\nmax_running = 2\n")
    role = start_role("streams", "scheduler", MESHYARD_POLICY_FILE=str(file))

    def changes() -> int:
        return len(entries(settings, codec, "policy_changed"))

    def next_life(text: str) -> None:
        ticks = len(entries(settings, codec, "tick"))
        wait_until(lambda: len(entries(settings, codec, "tick")) > ticks + 2, "the scheduler ticks", 20)
        assert role.stop() == 0
        file.write_text(text)
        role.start()
        ticks = len(entries(settings, codec, "tick"))
        wait_until(lambda: len(entries(settings, codec, "tick")) > ticks, "the next life ticks", 20)

    wait_until(lambda: changes() == 1, "the file's policy was appended", 20)
    next_life("[tiers.free]\nmax_running = 3\n")
    assert changes() == 2
    file.write_text("[tiers.free]\nmax_running = 0\n")
    refused = start_role("streams", "scheduler", "--domain", f"{settings.domain}x", MESHYARD_POLICY_FILE=str(file))
    assert refused.process is not None
    assert refused.process.wait(20) == 2
    assert "tiers.free.max_running" in refused.log()


def test_a_retry_comes_when_it_is_due(
    settings: KafkaSettings, codec: Codec, start_role: StartRole, slots: Slots
) -> None:
    """A stage that asked to be left alone for 1.3 s is tried again then, not at the next full second."""
    start_role("streams", "scheduler")
    submit(settings, codec, 1)
    wait_until(lambda: slots.work(None) > 0, "the first attempt was dispatched", 20)
    item = slots.seen[0][0]
    failed: dict[str, Any] = {
        "job_id": item["job_id"], "stage": "generate", "attempt": 1, "slot": 0, "epoch": 1, "outcome": "failed",
        "error_class": "rate_limited", "gpu_seconds": 0.1, "artefacts": [], "retry_after_seconds": 1.3,
    }  # fmt: skip
    settled_ms = now_ms()
    slots.append(0, {"kind": "stage_settled", "at": settled_ms, "settled": failed})
    wait_until(lambda: slots.work(None) > 0, "the second attempt was dispatched", 20)
    waited = slots.seen[0][1]["dispatched_at"] - settled_ms
    assert 1_300 <= waited < 1_300 + 600, waited
