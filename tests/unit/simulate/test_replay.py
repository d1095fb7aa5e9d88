"""Inboxes that the simulator wrote, folded again: the same dispatches, and what other weights would have done."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from schemas.codec import Codec
from streams.policy.config import DEFAULT
from streams.policy.decisions import Decision, Dispatch
from streams.policy.scheduler import Scheduler
from streams.policy.state import SchedulerState
from streams.simulate import counterfactual
from streams.simulate.engine import Simulation
from streams.simulate.generated import policy_entry
from streams.simulate.ledger import Ledger
from streams.simulate.replay import InboxRecord, Replay, Sent, compare, copied, refold
from streams.simulate.spec import load_spec
from streams.simulate.traffic import START_MS, MadeWork, arrivals, losses, slots, tenants

SPEC = """
seed = 5
duration_seconds = 40
[pools.default]
slots = 3
lost_per_hour = 100
back_seconds = 1
[service.generate]
mean_seconds = 0.4
[service.retopology]
mean_seconds = 0.2
[service.texture]
mean_seconds = 0.3
[failures]
transient = 0.05
[[users]]
name = "patient"
count = 2
load = 0.6
lanes = { standard = 0.8, batch = 0.2 }
[[users]]
name = "flooder"
tier = "free"
arrivals = "flood"
jobs_each = 60
start_seconds = 3
"""


class Recorder(Scheduler):
    """Keeps its inbox, and what a work topic would hold."""

    def __init__(self) -> None:
        super().__init__("main")
        self.inbox: list[InboxRecord] = []
        self.work: dict[int, list[tuple[int, dict[str, Any]]]] = {}
        self.snapshots: dict[int, SchedulerState] = {}
        self.codec = Codec()

    def apply(self, offset: int, record: Mapping[str, Any]) -> list[Decision]:
        """See Scheduler."""
        if offset % 50 == 0:
            self.snapshots[offset] = copied(self.state)
        # As Kafka keeps it: encoded when it is written, whatever happens to the objects later.
        self.inbox.append((offset, self.codec.decode(self.codec.encode("inbox_batch", record))))
        decisions = super().apply(offset, record)
        for one in decisions:
            if isinstance(one, Dispatch):
                batch = {"slot": one.slot, "epoch": one.epoch, "items": [one.item], "controls": []}
                item = self.codec.decode(self.codec.encode("work_batch", batch))["items"][0]
                self.work.setdefault(one.slot, []).append((one.epoch, item))
        return decisions


@dataclass
class Recorded:
    """A run with what it left behind."""

    scheduler: Recorder
    ledger: Ledger
    codec: Codec = field(default_factory=Codec)

    def replay(self, first: int, end: int) -> Replay:
        """A window folded again, from the newest snapshot before it."""
        before = [offset for offset in self.scheduler.snapshots if offset <= first]
        start = max(before)
        state = copied(self.scheduler.snapshots[start])
        return refold("main", state, self.scheduler.inbox[start:], (first, end))


@pytest.fixture(scope="module")
def recorded() -> Recorded:
    spec, scheduler, ledger = load_spec(SPEC), Recorder(), Ledger(bin_ms=1_000)
    simulation = Simulation(scheduler, MadeWork(spec), ledger, start_ms=START_MS)
    simulation.append([policy_entry(spec.policy, START_MS), *tenants(spec)])
    for entry in slots(spec):
        simulation.know_slot(entry["slot"]["slot"], entry["slot"]["epoch"])
    simulation.append(slots(spec))
    simulation.run(arrivals(spec), losses(spec))
    return Recorded(scheduler=scheduler, ledger=ledger)


def sent(work: Mapping[int, list[tuple[int, dict[str, Any]]]]) -> dict[int, Sent]:
    return {slot: Sent(items=items) for slot, items in work.items()}


@pytest.mark.parametrize(("first", "end"), [(0, 10_000), (0, 120), (130, 400), (50, 51), (399, 10_000)])
def test_a_replay_gives_the_same_dispatches(recorded: Recorded, first: int, end: int) -> None:
    found = recorded.replay(first, end)
    compared = compare(recorded.codec, found.dispatches, sent(recorded.scheduler.work))
    assert (compared.differing, compared.unchecked) == ([], 0)
    if end > 1_000:
        assert len(found.dispatches) > 100


def test_a_replay_of_everything_knows_what_happened(recorded: Recorded) -> None:
    found = recorded.replay(0, 10_000)
    assert found.ledger.ends == recorded.ledger.ends
    assert found.ledger.waits("user") == recorded.ledger.waits("user")
    assert found.records == len(recorded.scheduler.inbox)


def test_repeated_sends_count_once(recorded: Recorded) -> None:
    """A scheduler that was killed between its sends and their acknowledgement sends again."""
    found = recorded.replay(0, 10_000)
    twice = {slot: [*items[:9], *items[5:]] for slot, items in recorded.scheduler.work.items()}
    assert compare(recorded.codec, found.dispatches, sent(twice)).differing == []


def test_what_the_work_topic_let_go_is_left_out_and_counted(recorded: Recorded) -> None:
    found = recorded.replay(0, 10_000)
    late = {slot: Sent(items=items[4:], complete=False) for slot, items in recorded.scheduler.work.items()}
    compared = compare(recorded.codec, found.dispatches, late)
    assert (compared.differing, compared.unchecked) == ([], 4 * len(late))
    nothing = {slot: Sent(items=[], complete=False) for slot in late}
    assert compare(recorded.codec, found.dispatches, nothing).unchecked == len(found.dispatches)
    claimed = {slot: Sent(items=one.items) for slot, one in late.items()}
    assert len(compare(recorded.codec, found.dispatches, claimed).differing) == len(late)


@pytest.mark.parametrize("what", ["order", "field", "missing", "end"])
def test_a_difference_is_found_and_named(recorded: Recorded, what: str) -> None:
    found = recorded.replay(0, 10_000)
    work = copy.deepcopy(recorded.scheduler.work)
    items = work[1]
    dispatch_id = items[7][1]["dispatch_id"]
    if what == "order":
        items[7], items[8] = items[8], items[7]
    elif what == "field":
        items[7][1]["ready_at"] += 1
    elif what == "missing":
        del items[7]
    else:
        dispatch_id = items.pop()[1]["dispatch_id"]
    told = compare(recorded.codec, found.dispatches, sent(work)).differing
    assert len(told) == 1
    assert told[0].startswith("slot 1")
    assert dispatch_id in told[0]
    assert ("ready_at" in told[0]) == (what == "field")


def test_the_same_policy_on_the_same_slots_would_have_done_the_same(recorded: Recorded) -> None:
    """A counterfactual that changes nothing: waits as recorded, but for what lost attempts would have cost."""
    found = recorded.replay(0, 10_000)
    ledger, _ = counterfactual.run("main", found.facts, None, None)
    for user, waits in found.ledger.waits("user").items():
        again = ledger.waits("user")[user]
        assert again.jobs == waits.jobs
        assert again.p50 == pytest.approx(waits.p50, rel=0.1, abs=0.2)


def test_from_the_middle_what_waits_and_runs_is_taken_along(recorded: Recorded) -> None:
    found = recorded.replay(130, 10_000)
    assert found.facts.start.jobs
    ledger, _ = counterfactual.run("main", found.facts, None, None)
    recorded_waits, again = found.ledger.waits("all")["all"], ledger.waits("all")["all"]
    assert again.jobs == recorded_waits.jobs
    assert again.p90 == pytest.approx(recorded_waits.p90, rel=0.15, abs=0.3)


def test_more_slots_would_have_shortened_waits(recorded: Recorded) -> None:
    found = recorded.replay(0, 10_000)
    before = found.ledger.waits("user")["flooder"].p90
    ledger, _ = counterfactual.run("main", found.facts, None, 9)
    after = ledger.waits("user")["flooder"].p90
    assert before is not None
    assert after is not None
    assert after < 0.6 * before


def test_fewer_slots_would_have_lengthened_them(recorded: Recorded) -> None:
    found = recorded.replay(130, 10_000)
    before = found.ledger.waits("all")["all"]
    ledger, _ = counterfactual.run("main", found.facts, None, 1)
    after = ledger.waits("all")["all"]
    assert after.started < before.started


def test_another_weight_would_have_moved_waits(recorded: Recorded) -> None:
    """Free users, who flooded, would have had nearly everything with a hundred times the weight."""
    found = recorded.replay(0, 10_000)
    tiers = {**DEFAULT.tiers, "free": msgspec.structs.replace(DEFAULT.tier("free"), weight=400.0, max_running=100)}
    ledger, _ = counterfactual.run("main", found.facts, msgspec.structs.replace(DEFAULT, tiers=tiers), None)
    before, after = (one.waits("user")["flooder"].p50 for one in (found.ledger, ledger))
    assert before is not None
    assert after is not None
    assert after < before
