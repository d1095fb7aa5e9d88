"""The scheduler: a deterministic fold over its inbox.

`Scheduler.apply(offset, record)` takes one InboxBatch and returns decisions. Everything that a decision reads comes
through the inbox, time included, so the same inbox gives the same decisions, on any machine and after any crash.
Timers go off before the entry that brings their time; dispatching happens after each record, never between its entries.

A task is one stage of one job; its kind is `pipeline/stage@version`.

Time is the greatest `at` read. What a worker wrote (its clock is its own) and lies more than five minutes ahead of
everything that the platform itself wrote does not move time; a platform event says so, once a minute.
"""

from collections.abc import Mapping
from typing import Any, Final

from schemas.events import platform_event
from streams.policy.control import Control
from streams.policy.decisions import Decision, Platform, Refuse
from streams.policy.dispatch import Dispatcher
from streams.policy.fold import Fold
from streams.policy.jobs import Jobs
from streams.policy.report import Reporter
from streams.policy.slots import Slots
from streams.policy.state import SchedulerState

# Raised when the same inbox would give other decisions than before; a snapshot of another version is not used.
POLICY_VERSION: Final = 2
WRONG_CLOCK_MS: Final = 5 * 60_000
_TELL_CLOCK_EVERY_MS: Final = 60_000
_BY_WORKERS: Final = frozenset({"stage_settled", "slot_joined", "slot_report"})


class Scheduler:
    """State, what is derived from it, and the decisions of the record at hand. domain: names the reports."""

    def __init__(self, domain: str = "main", state: SchedulerState | None = None) -> None:
        self.domain = domain
        self.state = state or SchedulerState()
        self._fold = Fold(domain, self.state)
        self._slots = Slots(self._fold)
        self._jobs = Jobs(self._fold, self._slots)
        self._control = Control(self._fold, self._slots, self._jobs)
        self._dispatcher = Dispatcher(self._fold, self._slots)
        self._reporter = Reporter(self._fold, self._slots)

    @property
    def queued_tasks(self) -> int:
        """How many tasks wait in the queue; those that wait for a time or for their user's word are not among them."""
        return len(self._fold.queue)

    def next_due_ms(self) -> int | None:
        """When the earliest timer goes off (retry delays, deadlines), None without one; a tick should follow it."""
        return self._fold.timers.next_due()

    def apply(self, offset: int, record: Mapping[str, Any]) -> list[Decision]:
        """Folds one InboxBatch that stands at `offset`; records below `state.next_offset` are known and give []."""
        if offset < self.state.next_offset:
            return []
        for index, entry in enumerate(record["entries"]):
            self._advance(entry)
            try:
                self._entry(entry)
            except Exception as error:  # one bad entry must not stop everybody's queue; a replay refuses it again
                self._fold.decisions.append(Refuse(entry=index, detail=repr(error)))
        self._fire()
        self._dispatcher.run()
        self._jobs.check_depth()
        if not self.state.jobs:
            self._fold.queue.idle()
        self.state.next_offset = offset + 1
        return self._fold.take_decisions()

    def _entry(self, entry: Mapping[str, Any]) -> None:
        kind = entry["kind"]
        if kind == "stage_ready":
            self._jobs.ready(entry["ready"])
        elif kind == "stage_settled":
            self._jobs.settled(entry["settled"])
        elif kind == "tick":
            self._reporter.tick()
        elif kind == "slot_joined":
            self._control.slot_joined(entry["slot"])
        elif kind == "slot_lost":
            self._control.slot_lost(entry["slot"])
        elif kind == "slot_report":
            self._control.slot_reported(entry["report"])
        elif kind == "cancel":
            self._control.cancel(entry["cancel"])
        elif kind == "control":
            self._control.control(entry["control"])
        elif kind == "tenant_changed":
            self._control.tenant_changed(entry["tenant"])
        elif kind == "routing_changed":
            self._jobs.route(entry["routing"])
        elif kind == "policy_changed":
            self._control.policy_changed(entry["policy"])

    def _advance(self, entry: Mapping[str, Any]) -> None:
        """Time goes on to the entry's, unless it comes from a clock that is wrong."""
        state, at = self.state, entry["at"]
        if entry["kind"] not in _BY_WORKERS:
            state.trusted_at = max(state.trusted_at, at)
        elif state.trusted_at and at > state.trusted_at + WRONG_CLOCK_MS:
            self._tell_clock(entry)
            return
        if at > state.now:
            state.now = at
            self._fire()

    def _fire(self) -> None:
        timers = self._fold.timers
        while (due := timers.next_due()) is not None and due <= self.state.now:
            for job_id, name in timers.pop_due(self.state.now):
                if job_id in self.state.jobs:  # an earlier one of the same moment may have ended it
                    self._jobs.due(job_id, name)

    def _tell_clock(self, entry: Mapping[str, Any]) -> None:
        state = self.state
        if state.clock_told_at and state.now - state.clock_told_at < _TELL_CLOCK_EVERY_MS:
            return
        state.clock_told_at = state.now
        about = entry.get("settled") or entry.get("slot") or entry.get("report") or {}
        ahead_seconds = (entry["at"] - state.trusted_at) // 1000
        event = platform_event(
            "clock",
            domain=self.domain,
            subject=f"slot {about.get('slot')}",
            detail={"ahead_seconds": ahead_seconds, "effect": "its time is ignored; set the worker's clock"},
            at=state.now,
        )
        self._fold.decisions.append(Platform(event=event))
