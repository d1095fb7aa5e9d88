"""A world for the scheduler's fold: slots that run what they are sent, die, and come back; users who cancel.

It plays everybody but the scheduler, one inbox record at a time, and keeps the inbox, so that a test can fold it again.
The worker's half of the outcome rule (who writes a job's end) is the product's own, from schemas.jobs.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from schemas.jobs import TERMINAL_TRANSITIONS, is_final_failure
from streams.policy.decisions import Decision, Dispatch, StopWork, Tell
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


@dataclass
class World:
    """The inbox so far, what the fold decided for each record, and the slots' side of it."""

    scheduler: Scheduler = field(default_factory=Scheduler)
    inbox: list[dict[str, Any]] = field(default_factory=list)
    decided: list[list[Decision]] = field(default_factory=list)
    running: dict[int, dict[str, Any]] = field(default_factory=dict)  # slot -> item
    epochs: dict[int, int] = field(default_factory=dict)
    ends: Counter[str] = field(default_factory=Counter)  # job_id -> terminal events
    stopped: set[str] = field(default_factory=set)
    now: int = 1_000

    def append(self, *entries: dict[str, Any]) -> list[Decision]:
        """Appends one record to the inbox and lets the slots see what was decided."""
        self.now += 10
        record = {"entries": [{"at": self.now, **entry} for entry in entries]}
        self.inbox.append(record)
        decisions = self.scheduler.apply(len(self.inbox) - 1, record)
        self.decided.append(decisions)
        for decision in decisions:
            if isinstance(decision, Dispatch):
                assert self.epochs.get(decision.slot) == decision.epoch, "dispatched to a slot that is gone"
                assert decision.slot not in self.running, "dispatched to a busy slot"
                others = {(i["job_id"], i["stage"]) for i in self.running.values()}
                assert (decision.item["job_id"], decision.item["stage"]) not in others, "one task on two slots"
                self.running[decision.slot] = decision.item
            elif isinstance(decision, StopWork):
                self.stopped.add(decision.job_id)
            elif isinstance(decision, Tell) and decision.event["transition"] in TERMINAL_TRANSITIONS:
                self.ends[decision.event["job_id"]] += 1
        return decisions

    def wait(self, seconds: float) -> list[Decision]:
        """Time goes on; the scheduler's tick says so."""
        self.now += int(1000 * seconds)
        return self.append({"kind": "tick"})

    def join(self, slot: int) -> None:
        """A worker starts on a slot; what ran there is lost with the old one."""
        self.epochs[slot] = self.now
        self.running.pop(slot, None)
        self.append({"kind": "slot_joined", "slot": self._change(slot, self.epochs[slot])})

    def lose(self, slot: int) -> None:
        """The monitor declares a slot lost."""
        epoch = self.epochs.pop(slot)
        self.running.pop(slot, None)
        self.append({"kind": "slot_lost", "slot": self._change(slot, epoch)})

    def settle(self, slot: int, outcome: str, gpu_seconds: float = 1.0, error_class: str | None = None) -> None:
        """A slot's transaction: the stage's end, and the job's where the rule gives it to the worker."""
        item = self.running.pop(slot)
        last = item["stage_index"] + 1 == item["stage_count"]
        failed = outcome == "failed" and is_final_failure(error_class or "", item["attempt"], item["max_attempts"])
        if (outcome == "succeeded" and last) or outcome == "canceled" or failed:
            self.ends[item["job_id"]] += 1
        self.append({"kind": "stage_settled", "settled": self._settled(slot, item, outcome, gpu_seconds, error_class)})

    def _settled(
        self, slot: int, item: dict[str, Any], outcome: str, gpu_seconds: float, error_class: str | None
    ) -> dict[str, Any]:
        return {
            "job_id": item["job_id"], "stage": item["stage"], "attempt": item["attempt"], "slot": slot,
            "epoch": self.epochs[slot], "outcome": outcome, "error_class": error_class, "gpu_seconds": gpu_seconds,
            "artefacts": [], "retry_after_seconds": None, "run_seconds": gpu_seconds,
        }  # fmt: skip

    @staticmethod
    def _change(slot: int, epoch: int) -> dict[str, Any]:
        return {
            "slot": slot, "epoch": epoch, "pool": "main", "resource_class": "gpu", "serves": SERVES, "versions": [],
            "capacity": 1,
        }  # fmt: skip
