"""The simulated world around the scheduler's fold: an event loop over arrivals, slots that work, and time.

The scheduler is the product's own. What happens at one millisecond is one inbox record, or a few; a tick comes each
second and whenever the scheduler has something due, as its shell sends them.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol

import psutil

from schemas.jobs import TERMINAL_TRANSITIONS, is_final_failure
from streams.policy.decisions import Dispatch, Refuse, StopWork, Tell
from streams.policy.scheduler import Scheduler
from streams.simulate.ledger import Ledger

TICK_MS = 1_000
MOST_ENTRIES = 256  # of a record; what is left comes with the next one, at the same time
STALLED_MS = 600_000
Entry = dict[str, Any]
Timed = tuple[int, Entry]


class Outcome(NamedTuple):
    """How an attempt ends. held_ms: from its dispatch until its end is in the inbox; gpu_seconds: its measured cost."""

    held_ms: int
    gpu_seconds: float
    outcome: str = "succeeded"
    error_class: str | None = None


class Work(Protocol):
    """Says how attempts end."""

    def outcome(self, item: Entry) -> Outcome:
        """The fate of a dispatched WorkItem."""
        ...


class Simulation:
    """One run. `scheduler` may come from a snapshot; its slots and what runs on them are then told by `adopt`.

    offset: of the first inbox record that the simulation writes.
    """

    def __init__(self, scheduler: Scheduler, work: Work, ledger: Ledger, *, start_ms: int) -> None:
        self.scheduler = scheduler
        self.now_ms = start_ms
        self.records = 0
        self.dispatches = 0
        self.refused: list[str] = []  # why entries could not be applied
        self.peak_queued = 0
        self.peak_bytes = 0  # resident memory when most was queued
        self._work = work
        self._ledger = ledger
        self._offset = scheduler.state.next_offset
        self._epochs: dict[int, int] = {}
        self._busy: dict[tuple[str, str, int], bool] = {}  # (job, stage, attempt) that runs -> whether it shall stop
        # (when it ends, order, slot, epoch, item, outcome)
        self._ends: list[tuple[int, int, int, int, Entry, Outcome]] = []
        self._sequence = 0
        self._next_tick = start_ms
        self._process = psutil.Process()

    def adopt(self, slot: int, epoch: int, item: Entry, outcome: Outcome, dispatched_ms: int) -> None:
        """A task that runs already when the simulation begins."""
        self._run(slot, epoch, item, outcome, max(self.now_ms, dispatched_ms + outcome.held_ms))

    def know_slot(self, slot: int, epoch: int) -> None:
        """A slot that has joined already when the simulation begins."""
        self._epochs[slot] = epoch

    def run(
        self,
        arrivals: Iterable[Timed],
        background: Iterable[Timed] = (),
        until_ms: int | None = None,
        tell: Callable[[], None] = lambda: None,
    ) -> None:
        """Until all that arrives has ended, or until `until_ms`. background: what happens besides, such as lost slots;
        it keeps nothing going. tell: called for every simulated second. Jobs that nobody can run do not stop it: after
        ten minutes without an event it gives up."""
        first = _Peekable(arrivals)
        second = _Peekable(background)
        idle_since = self.now_ms
        while True:
            if first.head is None and not self._ends and self._ledger.open == 0:
                return
            self._skip_idle(first, second)
            times = [self._tick_at()]
            times.extend(one.head[0] for one in (first, second) if one.head is not None)
            if self._ends:
                times.append(self._ends[0][0])
            at = max(self.now_ms, min(times))
            if until_ms is not None and at > until_ms:
                return
            if first.head is not None or self._ends or self.scheduler.next_due_ms() is not None:
                idle_since = at
            elif at - idle_since > STALLED_MS:
                return
            self._step(at, first, second)
            if at == self._next_tick - TICK_MS:
                tell()

    def _skip_idle(self, first: "_Peekable", second: "_Peekable") -> None:
        """Ticks of a time in which nothing waits and nothing runs would change nothing."""
        heads = [one.head[0] for one in (first, second) if one.head is not None]
        if heads and not self._ends and not self.scheduler.state.jobs:
            self._next_tick = max(self._next_tick, min(heads))

    def _tick_at(self) -> int:
        due = self.scheduler.next_due_ms()
        return self._next_tick if due is None else min(self._next_tick, due)

    def _step(self, at: int, first: "_Peekable", second: "_Peekable") -> None:
        """Everything that happens at `at` as one record, and what is decided upon it."""
        self.now_ms = at
        entries: list[Entry] = []
        for source in (second, first):
            while source.head is not None and source.head[0] <= at and len(entries) < MOST_ENTRIES:
                entry = source.take()
                self._see(entry, at)
                entries.append(entry)
        while self._ends and self._ends[0][0] <= at and len(entries) < MOST_ENTRIES:
            _, _, slot, epoch, item, outcome = heapq.heappop(self._ends)
            entry_or_none = self._settle(at, slot, epoch, item, outcome)
            if entry_or_none is not None:
                entries.append(entry_or_none)
        if at >= self._tick_at():
            entries.append({"kind": "tick", "at": at})
            if at >= self._next_tick:
                self._next_tick = at + TICK_MS
                self._measure()
        self.append(entries)

    def _measure(self) -> None:
        if self.scheduler.queued_tasks > self.peak_queued:
            self.peak_queued = self.scheduler.queued_tasks
            self.peak_bytes = self._process.memory_info().rss

    def append(self, entries: list[Entry]) -> None:
        """One record of the inbox."""
        self.records += 1
        decisions = self.scheduler.apply(self._offset, {"entries": entries})
        self._offset += 1
        for decision in decisions:
            if isinstance(decision, Dispatch):
                self._start(decision)
            elif isinstance(decision, Tell):
                self._told(decision.event)
            elif isinstance(decision, StopWork):
                self._stop(decision)
            elif isinstance(decision, Refuse):
                self.refused.append(decision.detail)

    def _see(self, entry: Entry, at: int) -> None:
        kind = entry["kind"]
        if kind == "stage_ready":
            self._ledger.arrived(entry["ready"], at)
        elif kind == "slot_joined":
            self._epochs[entry["slot"]["slot"]] = entry["slot"]["epoch"]
        elif kind == "slot_lost" and self._epochs.get(entry["slot"]["slot"]) == entry["slot"]["epoch"]:
            del self._epochs[entry["slot"]["slot"]]

    def _start(self, dispatch: Dispatch) -> None:
        item = dispatch.item
        self.dispatches += 1
        outcome = self._work.outcome(item)
        self._ledger.started(item, self.now_ms, outcome.gpu_seconds)
        self._run(dispatch.slot, dispatch.epoch, item, outcome, self.now_ms + max(1, outcome.held_ms))

    def _run(self, slot: int, epoch: int, item: Entry, outcome: Outcome, ends_ms: int) -> None:
        self._busy[item["job_id"], item["stage"], item["attempt"]] = False
        self._sequence += 1
        heapq.heappush(self._ends, (ends_ms, self._sequence, slot, epoch, item, outcome))

    def _settle(self, at: int, slot: int, epoch: int, item: Entry, outcome: Outcome) -> Entry | None:
        stopped = self._busy.pop((item["job_id"], item["stage"], item["attempt"]), None)
        if stopped is None or self._epochs.get(slot) != epoch:
            return None  # the slot was lost meanwhile, or the task was stopped
        how, error_class = outcome.outcome, outcome.error_class
        self._ledger.settled(item, at, outcome.gpu_seconds)
        if how == "failed" and is_final_failure(error_class or "", item["attempt"], item["max_attempts"]):
            self._ledger.ended(item["job_id"], "failed", at)
        elif how == "succeeded" and item["stage_index"] + 1 == item["stage_count"]:
            self._ledger.ended(item["job_id"], "succeeded", at)
        elif how == "canceled":
            self._ledger.ended(item["job_id"], "canceled", at)
        else:
            self._ledger.waits_again(item, at)
        settled = {
            "job_id": item["job_id"], "stage": item["stage"], "attempt": item["attempt"], "slot": slot, "epoch": epoch,
            "outcome": how, "error_class": error_class, "gpu_seconds": outcome.gpu_seconds, "artefacts": [],
            "retry_after_seconds": None, "run_seconds": outcome.gpu_seconds,
        }  # fmt: skip
        return {"kind": "stage_settled", "at": at, "settled": settled}

    def _told(self, event: Entry) -> None:
        transition = event["transition"]
        if transition in TERMINAL_TRANSITIONS:
            self._ledger.withdrawn(event, self.now_ms)
            self._ledger.ended(event["job_id"], transition, self.now_ms)
        elif transition == "stage_lost":
            self._busy.pop((event["job_id"], event["stage"], event["attempt"]), None)
            self._ledger.waits_again(event, self.now_ms)

    def _stop(self, stop: StopWork) -> None:
        """The slot ends what it runs, at once."""
        key = (stop.job_id, stop.stage, stop.attempt)
        if key not in self._busy:
            return
        for _, _, slot, epoch, item, outcome in self._ends:
            if (item["job_id"], item["stage"], item["attempt"]) == key:
                canceled = Outcome(held_ms=0, gpu_seconds=min(outcome.gpu_seconds, 0.0), outcome="canceled")
                self._sequence += 1
                heapq.heappush(self._ends, (self.now_ms + 1, self._sequence, slot, epoch, item, canceled))
                return


class _Peekable:
    """An iterator whose next element can be looked at."""

    def __init__(self, source: Iterable[Timed]) -> None:
        self._source: Iterator[Timed] = iter(source)
        self.head: Timed | None = next(self._source, None)

    def take(self) -> Entry:
        """The next element's entry."""
        assert self.head is not None
        entry = self.head[1]
        self.head = next(self._source, None)
        return entry
