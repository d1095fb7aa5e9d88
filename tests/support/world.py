"""A world for the scheduler's fold: slots that run what they are sent, die, and come back; users who cancel.

It plays everybody but the scheduler, one inbox record at a time, and keeps the inbox, so that a test can fold it again.
What every dispatch must respect is checked as it happens, from what the slots and the users said themselves. The
worker's half of the outcome rule (who writes a job's end) is the product's own, from schemas.jobs.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from schemas.jobs import TERMINAL_TRANSITIONS, Transition, is_final_failure
from streams.policy.decisions import Closed, Dead, Decision, Dispatch, Refuse, StopWork, Tell
from streams.policy.retries import delay_ms
from streams.policy.scheduler import Scheduler

SERVES = ["synthetic/generate", "synthetic/retopology", "synthetic/texture"]


def ready(job_id: str, user_id: str, **given: Any) -> dict[str, Any]:
    """A StageReady for the first stage of a synthetic job; `given` replaces fields."""
    return {
        "job_id": job_id, "user_id": user_id, "pipeline_id": "synthetic", "stage": "generate", "tier": "free",
        "model_version": None, "quality": "standard", "texture_size": None, "lane": "standard", "priority": 3,
        "artefacts": [], "start_by": None, "finish_by": None, "max_queue_depth": None, "retry_of": None,
        "traceparent": None, "created_at": 0, "request": b"request of " + job_id.encode(), **given,
    }  # fmt: skip


def tenant(user_id: str, **given: Any) -> dict[str, Any]:
    """A tenant_changed entry; `given` replaces fields."""
    row = {"user_id": user_id, "tier": "free", "weight": 1.0, "max_running": None, **given}
    return {"kind": "tenant_changed", "tenant": row}


def routing(revision: int, arms: dict[str, float], **given: Any) -> dict[str, Any]:
    """A routing_changed entry for the synthetic generate stage; arms: version -> share, the first one is stable."""
    rule = {
        "name": "synthetic/generate", "pipeline_id": "synthetic", "stage": "generate", "experiment": "e",
        "arms": [{"model_version": version, "weight": weight} for version, weight in arms.items()],
        "stable": next(iter(arms)), "guard": None, "revision": revision, "changed_by": "ann", "reason": "",
        "changed_at": 0, **given,
    }  # fmt: skip
    return {"kind": "routing_changed", "routing": rule}


@dataclass
class Place:
    """A slot as its worker knows it. items: what it runs, by job."""

    change: dict[str, Any]
    draining: bool = False
    items: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass
class World:
    """The inbox so far, what the fold decided for each record, and the slots' and users' side of it."""

    scheduler: Scheduler = field(default_factory=Scheduler)
    inbox: list[dict[str, Any]] = field(default_factory=list)
    decided: list[list[Decision]] = field(default_factory=list)
    slots: dict[int, Place] = field(default_factory=dict)
    asked: dict[str, dict[str, Any]] = field(default_factory=dict)  # job_id -> its StageReady
    ends: Counter[str] = field(default_factory=Counter)  # job_id -> terminal events
    closed: Counter[str] = field(default_factory=Counter)
    dead: list[str] = field(default_factory=list)
    stopped: set[str] = field(default_factory=set)
    started: set[str] = field(default_factory=set)
    not_before: dict[str, int] = field(default_factory=dict)  # job_id -> when its next attempt may start
    told: list[dict[str, Any]] = field(default_factory=list)
    epoch: int = 0
    now: int = 1_000

    # ---- what happens -------------------------------------------------------------------------------------------

    def append(self, *entries: dict[str, Any]) -> list[Decision]:
        """Appends one record to the inbox and lets the slots see what was decided."""
        self.now += 10
        record = {"entries": [{"at": self.now, **entry} for entry in entries]}
        for entry in entries:
            if entry["kind"] == "stage_ready":
                self.asked.setdefault(entry["ready"]["job_id"], entry["ready"])
        self.inbox.append(record)
        decisions = self.scheduler.apply(len(self.inbox) - 1, record)
        self.decided.append(decisions)
        for decision in decisions:
            self._see(decision)
        return decisions

    def submit(self, *jobs: tuple[str, str], **given: Any) -> list[Decision]:
        """(job_id, user_id) of jobs that come with one record."""
        return self.append(*({"kind": "stage_ready", "ready": ready(job, user, **given)} for job, user in jobs))

    def wait(self, seconds: float) -> list[Decision]:
        """Time goes on; the scheduler's tick says so."""
        self.now += int(1000 * seconds)
        return self.append({"kind": "tick"})

    def join(self, slot: int, **given: Any) -> list[Decision]:
        """A worker starts on a slot; what ran there is lost with the old one. `given` replaces fields."""
        self.epoch += 1
        change = {
            "slot": slot, "epoch": self.epoch, "pool": "main", "resource_class": "gpu", "serves": SERVES,
            "versions": [], "capacity": 1, **given,
        }  # fmt: skip
        self._drop(slot)
        self.slots[slot] = Place(change)
        return self.append({"kind": "slot_joined", "slot": change})

    def lose(self, slot: int) -> list[Decision]:
        """The monitor declares a slot lost."""
        change = self._drop(slot)
        return self.append({"kind": "slot_lost", "slot": change})

    def drain(self, slot: int, draining: bool = True) -> list[Decision]:
        """A slot says whether it wants new work."""
        self.slots[slot].draining = draining
        epoch = self.slots[slot].change["epoch"]
        report = {"slot": slot, "epoch": epoch, "draining": draining, "dispatch_ids": [], "last_work_offset": 0}
        return self.append({"kind": "slot_report", "report": report})

    def cancel(self, job_id: str, user_id: str, reason: str = "") -> list[Decision]:
        """A user cancels."""
        return self.append({"kind": "cancel", "cancel": {"job_id": job_id, "user_id": user_id, "reason": reason}})

    def control(self, kind: str, job_id: str, user_id: str, priority: int | None = None) -> list[Decision]:
        """A user reprioritises, pauses or resumes."""
        order = {"kind": kind, "job_id": job_id, "user_id": user_id, "priority": priority}
        return self.append({"kind": "control", "control": order})

    def settle(
        self,
        slot: int,
        outcome: str = "succeeded",
        gpu_seconds: float = 1.0,
        error_class: str | None = None,
        *,
        job_id: str | None = None,
        **given: Any,
    ) -> list[Decision]:
        """A slot's transaction: the stage's end, and the job's where the rule gives it to the worker. job_id: which of
        the slot's jobs, the oldest if none is given."""
        place = self.slots[slot]
        item = place.items.pop(job_id or next(iter(place.items)))
        settled = self.settlement(slot, item, outcome, gpu_seconds, error_class, **given)
        last = item["stage_index"] + 1 == item["stage_count"]
        failed = outcome == "failed"
        final = failed and is_final_failure(error_class or "", item["attempt"], item["max_attempts"])
        if (outcome == "succeeded" and last) or outcome == "canceled" or final:
            self.ends[item["job_id"]] += 1
        elif failed:
            self._delay(item, error_class or "", settled["retry_after_seconds"])
        return self.append({"kind": "stage_settled", "settled": settled})

    def settlement(
        self,
        slot: int,
        item: dict[str, Any],
        outcome: str = "succeeded",
        gpu_seconds: float = 1.0,
        error_class: str | None = None,
        **given: Any,
    ) -> dict[str, Any]:
        """A StageSettled by the worker that has the slot now."""
        return {
            "job_id": item["job_id"], "stage": item["stage"], "attempt": item["attempt"], "slot": slot,
            "epoch": self.slots[slot].change["epoch"], "outcome": outcome, "error_class": error_class,
            "gpu_seconds": gpu_seconds, "artefacts": [], "retry_after_seconds": None, "run_seconds": gpu_seconds,
            **given,
        }  # fmt: skip

    # ---- what is seen -------------------------------------------------------------------------------------------

    def item(self, slot: int = 0) -> dict[str, Any]:
        """The oldest task that a slot runs."""
        return next(iter(self.slots[slot].items.values()))

    def busy(self) -> list[int]:
        """Slots that run something."""
        return sorted(slot for slot, place in self.slots.items() if place.items)

    def running_of(self, user_id: str) -> int:
        """How many tasks of a user run."""
        return sum(item["user_id"] == user_id for place in self.slots.values() for item in place.items.values())

    def transitions(self) -> list[tuple[str, str | None, int]]:
        """(transition, stage, attempt) of all that was told."""
        return [(event["transition"], event["stage"], event["attempt"]) for event in self.told]

    def _see(self, decision: Decision) -> None:
        assert not isinstance(decision, Refuse), decision
        if isinstance(decision, Dispatch):
            self._take(decision)
        elif isinstance(decision, StopWork):
            # The same record may have settled it or lost its slot: the worker's commit decides the race.
            place = self.slots.get(decision.slot)
            if place is not None and decision.job_id in place.items:
                self.stopped.add(decision.job_id)
        elif isinstance(decision, Closed):
            self.closed.update(decision.job_ids)
        elif isinstance(decision, Dead):
            self.dead.append(decision.letter["job"]["job_id"])
        elif isinstance(decision, Tell):
            self.told.append(decision.event)
            if decision.event["transition"] in TERMINAL_TRANSITIONS:
                self.ends[decision.event["job_id"]] += 1
            if decision.event["transition"] == Transition.STAGE_LOST and decision.event["due_at"]:
                self.not_before[decision.event["job_id"]] = decision.event["due_at"]

    def _take(self, dispatch: Dispatch) -> None:
        """A worker takes a task in; what must hold for every dispatch is checked here."""
        item, place = dispatch.item, self.slots.get(dispatch.slot)
        assert place is not None, "dispatched to a slot that is gone"
        assert place.change["epoch"] == dispatch.epoch, "dispatched to a slot's former life"
        assert not place.draining, "dispatched to a slot that drains"
        assert len(place.items) < place.change["capacity"], "dispatched to a full slot"
        job_id, pipeline_id = item["job_id"], item["pipeline_id"]
        assert all(job_id not in other.items for other in self.slots.values()), "one job on two slots"
        assert f"{pipeline_id}/{item['stage']}" in place.change["serves"], "the slot cannot run the stage"
        versions = place.change["versions"]
        assert not versions or f"{pipeline_id}@{item['model_version']}" in versions, "the slot has not this version"
        policy = self.scheduler.state.policy
        assert item["lane"] in policy.pool(place.change["pool"]).lanes, "the pool does not serve the lane"
        asked = self.asked[job_id]
        assert asked["model_version"] in (None, item["model_version"]), "another version than the user's"
        assert self.now >= self.not_before.pop(job_id, 0), "started before its time"
        if job_id not in self.started:
            assert asked["start_by"] is None or self.now < asked["start_by"], "started after its deadline"
        assert asked["finish_by"] is None or self.now < asked["finish_by"], "started after its last deadline"
        assert not self.ends[job_id], "started after its end"
        row = self.scheduler.state.tenants.get(item["user_id"])
        cap = row.max_running if row is not None else None
        tier = policy.tier(row.tier if row is not None else "free")
        assert self.running_of(item["user_id"]) < (tier.max_running if cap is None else cap), "over the user's cap"
        self.started.add(job_id)
        place.items[job_id] = item

    def _delay(self, item: dict[str, Any], error_class: str, retry_after_seconds: float | None) -> None:
        """When a failed attempt may be repeated, were it settled now."""
        retry = self.scheduler.state.policy.retry(item["stage"])
        wait_ms = delay_ms(retry, error_class, item["attempt"], item["dispatch_id"], retry_after_seconds)
        self.not_before[item["job_id"]] = self.now + wait_ms

    def _drop(self, slot: int) -> dict[str, Any]:
        place = self.slots.pop(slot, None)
        return place.change if place is not None else {}
