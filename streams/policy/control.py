"""Entries that change who may run what: slots that come and go, users' commands, tenants, the policy."""

from collections.abc import Mapping
from typing import Any

from schemas.events import platform_event
from streams.policy.config import digest, parse_policy
from streams.policy.decisions import Platform
from streams.policy.fold import Fold
from streams.policy.jobs import CANCELED, Jobs, early_key
from streams.policy.slots import Slots
from streams.policy.state import EarlyCancel, Job, Slot, Tenant


class Control:
    """Applies such entries."""

    def __init__(self, fold: Fold, slots: Slots, jobs: Jobs) -> None:
        self._fold = fold
        self._slots = slots
        self._jobs = jobs

    # ---- slots --------------------------------------------------------------------------------------------------

    def slot_joined(self, change: Mapping[str, Any]) -> None:
        """A worker began its life on a slot; what its last life had in hand is lost."""
        epochs = self._fold.state.epochs
        if change["epoch"] <= epochs.get(change["slot"], -1):
            return  # a repeat, perhaps of a life that is over
        epochs[change["slot"]] = change["epoch"]
        known = self._fold.state.slots.get(change["slot"])
        if known is not None:
            self._lose(known)
        slot = Slot(
            slot=change["slot"],
            epoch=change["epoch"],
            pool=change["pool"],
            resource_class=change["resource_class"],
            serves=tuple(sorted(change["serves"])),
            versions=tuple(sorted(change["versions"])),
            capacity=max(1, change["capacity"]),
        )
        self._fold.state.slots[slot.slot] = slot
        self._slots.add(slot)

    def slot_lost(self, change: Mapping[str, Any]) -> None:
        """The monitor declared a slot's life over."""
        epochs = self._fold.state.epochs
        epochs[change["slot"]] = max(change["epoch"], epochs.get(change["slot"], -1))
        slot = self._fold.state.slots.get(change["slot"])
        if slot is not None and slot.epoch == change["epoch"]:
            self._lose(slot)

    def _lose(self, slot: Slot) -> None:
        self._slots.drop(slot)
        del self._fold.state.slots[slot.slot]
        for job_id in slot.jobs:
            self._jobs.lost(self._fold.state.jobs[job_id], slot)

    def slot_reported(self, report: Mapping[str, Any]) -> None:
        """A slot says whether it wants new work."""
        slot = self._fold.state.slots.get(report["slot"])
        if slot is not None and slot.epoch == report["epoch"]:
            self._slots.drain(slot, report["draining"])

    # ---- users' commands ----------------------------------------------------------------------------------------

    def cancel(self, cancel: Mapping[str, Any]) -> None:
        """A user wants a job ended; it may not be known yet."""
        state = self._fold.state
        job = state.jobs.get(cancel["job_id"])
        if job is not None:
            if job.user_id == cancel["user_id"]:
                self._jobs.stop(job, CANCELED, cancel["reason"] or "canceled by the user")
        elif cancel["job_id"] not in state.finished:
            early = EarlyCancel(reason=cancel["reason"], at=state.now)
            state.early_cancels.setdefault(early_key(cancel["job_id"], cancel["user_id"]), early)

    def control(self, control: Mapping[str, Any]) -> None:
        """A user changes the order among own jobs, or lets some wait. Without a job's id: all that wait."""
        apply = {"reprioritise": self._reprioritise, "pause": self._pause, "resume": self._resume}[control["kind"]]
        for job in self._named(control["job_id"], control["user_id"]):
            apply(job, control["priority"])

    def _named(self, job_id: str, user_id: str) -> list[Job]:
        jobs = self._fold.state.jobs
        if job_id:
            job = jobs.get(job_id)
            return [job] if job is not None and job.user_id == user_id else []
        return [job for job in jobs.values() if job.user_id == user_id and job.slot is None]

    def _reprioritise(self, job: Job, priority: int | None) -> None:
        if priority is not None:
            job.priority = priority
            self._fold.queue.reprioritise(job.job_id, priority)

    def _pause(self, job: Job, _: int | None) -> None:
        """A stage that runs goes on; nothing after it starts."""
        if not job.paused:
            job.paused = True
            self._fold.withdraw(job)

    def _resume(self, job: Job, _: int | None) -> None:
        if job.paused:
            job.paused = False
            if job.slot is None and not job.due_at:
                job.ready_at = self._fold.now
                self._fold.enqueue(job)

    # ---- operators ----------------------------------------------------------------------------------------------

    def tenant_changed(self, tenant: Mapping[str, Any]) -> None:
        """A user's tier, weight or cap; it acts on what waits already."""
        user_id = tenant["user_id"]
        self._fold.state.tenants[user_id] = Tenant(
            tier=tenant["tier"], weight=tenant["weight"], max_running=tenant["max_running"]
        )
        self._fold.weigh(user_id)

    def policy_changed(self, change: Mapping[str, Any]) -> None:
        """The policy as a whole; it acts on what waits already. Raises PolicyError."""
        fold, state = self._fold, self._fold.state
        policy = parse_policy(change["body"])
        name = digest(policy)
        if name == state.policy_digest:
            return
        detail = {"before": state.policy_digest, "after": name}
        event = platform_event("policy", domain=fold.domain, subject="policy", detail=detail, at=state.now)
        fold.decisions.append(Platform(event=event))
        state.policy, state.policy_digest = policy, name
        fold.follow_policy()
        self._slots.follow_policy()
