"""The same arrivals, costs and failures under another policy, or on other slots: what would have been.

Arrivals, cancels, tenants and the like come as they were recorded. How an attempt ends is what was recorded of it;
where the recording has none (the task never ran, or its slot was lost) its other attempts or the mean of its kind stand
for it.
"""

from statistics import fmean

from streams.policy.config import Policy
from streams.policy.scheduler import Scheduler
from streams.simulate.engine import Entry, Outcome, Simulation, Timed
from streams.simulate.generated import policy_entry
from streams.simulate.ledger import Ledger
from streams.simulate.replay import Facts, copied, item_of

_SLOTS = ("slot_joined", "slot_lost", "slot_report")


class RecordedWork:
    """Ends attempts as they ended in the recording."""

    def __init__(self, facts: Facts) -> None:
        self._outcomes = facts.outcomes
        self._of_stage: dict[tuple[str, str], Outcome] = {}
        by_stage: dict[str, list[Outcome]] = {}
        for (job_id, stage, _), outcome in facts.outcomes.items():
            if outcome.outcome == "succeeded":
                self._of_stage[job_id, stage] = outcome
                by_stage.setdefault(stage, []).append(outcome)
        self._means = {
            stage: Outcome(
                held_ms=round(fmean(o.held_ms for o in outcomes)), gpu_seconds=fmean(o.gpu_seconds for o in outcomes)
            )
            for stage, outcomes in by_stage.items()
        }
        self.guessed = 0

    def outcome(self, item: Entry) -> Outcome:
        """See Work. A recorded `canceled` was its user's wish, which comes by itself: it does not count as an end."""
        known = self._outcomes.get((item["job_id"], item["stage"], item["attempt"]))
        if known is not None and known.outcome != "canceled":
            return known
        self.guessed += 1
        same = self._of_stage.get((item["job_id"], item["stage"]))
        return same or self._means.get(item["stage"]) or Outcome(held_ms=1_000, gpu_seconds=1.0)


def run(domain: str, facts: Facts, policy: Policy | None, slots: int | None) -> tuple[Ledger, int]:
    """What would have been, and how many attempts' ends had to be guessed.

    policy: None leaves the recorded one; slots: None leaves the recorded ones. Runs until the recording's last time.
    """
    state = copied(facts.start)
    scheduler = Scheduler(domain, state)
    work, ledger = RecordedWork(facts), Ledger(bin_ms=1_000)
    start_ms = state.now or min((at for at, _ in facts.entries), default=0)  # a state of before all has no time yet
    simulation = Simulation(scheduler, work, ledger, start_ms=start_ms)
    for slot in state.slots.values():
        simulation.know_slot(slot.slot, slot.epoch)
        for job_id in slot.jobs:
            job = state.jobs[job_id]
            item = item_of(job)
            simulation.adopt(slot.slot, slot.epoch, item, work.outcome(item), job.dispatched_at)
    entries: list[Timed] = facts.entries
    first: list[Entry] = [] if policy is None else [policy_entry(policy, start_ms)]
    if slots is not None:
        entries = [(at, entry) for at, entry in entries if entry["kind"] not in _SLOTS]
        first += _other_slots(facts, slots, start_ms, simulation)
    if policy is not None:
        entries = [(at, entry) for at, entry in entries if entry["kind"] != "policy_changed"]
    if first:
        simulation.append(first)
    simulation.run(sorted(entries, key=lambda timed: timed[0]), until_ms=facts.until_ms)
    return ledger, work.guessed


def _other_slots(facts: Facts, wanted: int, at: int, simulation: Simulation) -> list[Entry]:
    """Entries that leave `wanted` slots: the last ones take nothing new, or more join that are like those there."""
    changes = [_change(facts, number) for number in sorted(facts.start.slots)]
    if not changes:
        changes = [entry["slot"] for _, entry in facts.entries if entry["kind"] == "slot_joined"]
    if not changes:
        return []
    entries: list[Entry] = []
    known = len(facts.start.slots)
    for number, change in enumerate(changes[:known]):
        if number >= wanted:
            report = {
                "slot": change["slot"],
                "epoch": change["epoch"],
                "draining": True,
                "dispatch_ids": [],
                "last_work_offset": 0,
            }
            entries.append({"kind": "slot_report", "at": at, "report": report})
    free = max((change["slot"] for change in changes), default=-1) + 1
    for number in range(known, wanted):
        change = {**changes[number % len(changes)], "slot": free + number - known, "epoch": 1}
        simulation.know_slot(change["slot"], change["epoch"])
        entries.append({"kind": "slot_joined", "at": at, "slot": change})
    return entries


def _change(facts: Facts, number: int) -> Entry:
    slot = facts.start.slots[number]
    return {
        "slot": slot.slot,
        "epoch": slot.epoch,
        "pool": slot.pool,
        "resource_class": slot.resource_class,
        "serves": list(slot.serves),
        "versions": list(slot.versions),
        "capacity": slot.capacity,
    }
