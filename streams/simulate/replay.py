"""A recorded inbox, folded again by the code that folded it first.

Without changes the fold must give the dispatches that stand on the work topic, in their order; `differences` says where
it does not. What happened to the recorded tasks is kept as the facts of a counterfactual run.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from schemas.codec import Codec, Record
from schemas.jobs import TERMINAL_TRANSITIONS, is_final_failure
from schemas.pipelines import PIPELINES
from streams.policy.decisions import Dispatch, Tell
from streams.policy.scheduler import POLICY_VERSION, Scheduler
from streams.policy.state import Job, SchedulerState, Snapshot, decode_snapshot, encode_snapshot
from streams.simulate.engine import Entry, Outcome
from streams.simulate.ledger import Ledger

Attempt = tuple[str, str, int]
InboxRecord = tuple[int, Record]


@dataclass(frozen=True, kw_only=True)
class Dispatched:
    """A dispatch of the fold. offset: of the inbox record that brought it about."""

    offset: int
    slot: int
    epoch: int
    item: Entry


@dataclass(kw_only=True)
class Facts:
    """What a recording says of the world around the scheduler.

    start: the state where the window begins; entries: those of the window that no slot's work caused, in order;
    outcomes: how attempts ended; until_ms: the recording's last time.
    """

    start: SchedulerState
    entries: list[tuple[int, Entry]] = field(default_factory=list)
    outcomes: dict[Attempt, Outcome] = field(default_factory=dict)
    until_ms: int = 0


@dataclass(kw_only=True)
class Replay:
    """A window folded again. dispatches: decided in it; ledger: of the jobs that came in it and after it."""

    dispatches: list[Dispatched]
    facts: Facts
    ledger: Ledger
    scheduler: Scheduler
    records: int
    last_arrival_ms: int | None = None  # jobs that came later are not of the window


def refold(
    domain: str, state: SchedulerState | None, records: Iterable[InboxRecord], window: tuple[int, int]
) -> Replay:
    """Folds records from a snapshot on. window: [first, end) offsets whose dispatches and jobs are of interest;
    records after it are folded as well, for what became of those jobs."""
    scheduler = Scheduler(domain, state)
    ledger = Ledger(bin_ms=1_000)
    replay = Replay(dispatches=[], facts=Facts(start=scheduler.state), ledger=ledger, scheduler=scheduler, records=0)
    running: dict[Attempt, Dispatched] = {}
    begun = False
    for offset, record in records:
        if offset >= window[0] and not begun:
            begun = True
            replay.facts.start = copied(scheduler.state)
            for dispatched in _running(scheduler.state):
                running[_attempt(dispatched.item)] = dispatched
        for dispatch in _fold(scheduler, offset, record, running, replay, begun):
            running[_attempt(dispatch.item)] = dispatch
            if window[0] <= offset < window[1]:
                replay.dispatches.append(dispatch)
        if offset >= window[1] and replay.last_arrival_ms is None:
            replay.last_arrival_ms = scheduler.state.now
    if not begun:
        replay.facts.start = copied(scheduler.state)
    return replay


def _fold(
    scheduler: Scheduler,
    offset: int,
    record: Record,
    running: dict[Attempt, Dispatched],
    replay: Replay,
    begun: bool,
) -> list[Dispatched]:
    """One record: what it tells the ledger and the facts, and the dispatches that follow from it.

    Times are the fold's own: entries carry the clocks of those who wrote them.
    """
    ledger = replay.ledger
    decisions = scheduler.apply(offset, record)
    now = scheduler.state.now
    if begun:
        replay.records += 1
        replay.facts.until_ms = now
        for entry in record["entries"]:
            if entry["kind"] == "stage_settled":
                _settled(entry, now, running, replay)
            elif entry["kind"] != "tick":
                replay.facts.entries.append((now, entry))
                if entry["kind"] == "stage_ready":
                    ledger.arrived(entry["ready"], now)
    found = []
    for decision in decisions:
        if isinstance(decision, Dispatch):
            found.append(Dispatched(offset=offset, slot=decision.slot, epoch=decision.epoch, item=decision.item))
            if begun:
                ledger.started(decision.item, now, 0.0)
        elif begun and isinstance(decision, Tell) and decision.event["transition"] in TERMINAL_TRANSITIONS:
            ledger.ended(decision.event["job_id"], decision.event["transition"], now)
    return found


def _settled(entry: Entry, now: int, running: dict[Attempt, Dispatched], replay: Replay) -> None:
    """The recorded end of an attempt that ran: a fact, and the job's end where the worker says it."""
    settled = entry["settled"]
    dispatched = running.get((settled["job_id"], settled["stage"], settled["attempt"]))
    if dispatched is None or (dispatched.slot, dispatched.epoch) != (settled["slot"], settled["epoch"]):
        return
    item, how, error_class = dispatched.item, settled["outcome"], settled["error_class"]
    del running[_attempt(item)]
    replay.facts.outcomes[_attempt(item)] = Outcome(
        held_ms=max(1, now - item["dispatched_at"]),
        gpu_seconds=settled["gpu_seconds"],
        outcome=how,
        error_class=error_class,
    )
    replay.ledger.settled(item, now, settled["gpu_seconds"])
    failed = how == "failed" and is_final_failure(error_class or "", item["attempt"], item["max_attempts"])
    if failed or how == "canceled" or (how == "succeeded" and item["stage_index"] + 1 == item["stage_count"]):
        replay.ledger.ended(item["job_id"], how, now)


def _running(state: SchedulerState) -> list[Dispatched]:
    """What runs on the slots of a state."""
    return [
        Dispatched(offset=-1, slot=slot.slot, epoch=slot.epoch, item=item_of(state.jobs[job_id]))
        for slot in state.slots.values()
        for job_id in slot.jobs
    ]


def item_of(job: Job) -> Entry:
    """What a simulation needs to know of the WorkItem of a job that runs."""
    return {
        "job_id": job.job_id,
        "user_id": job.user_id,
        "stage": job.stage,
        "stage_index": job.stage_index,
        "stage_count": len(PIPELINES[job.pipeline_id].stages),
        "attempt": job.attempt,
        "max_attempts": job.max_attempts,
        "pipeline_id": job.pipeline_id,
        "model_version": job.version,
        "quality": job.quality,
        "lane": job.lane,
        "tier": job.tier,
        "dispatched_at": job.dispatched_at,
    }


def copied(state: SchedulerState) -> SchedulerState:
    """The same state, of which nothing is shared."""
    return decode_snapshot(encode_snapshot(Snapshot(policy_version=POLICY_VERSION, state=state))).state


def _attempt(item: Mapping[str, Any]) -> Attempt:
    return item["job_id"], item["stage"], item["attempt"]


@dataclass(frozen=True, kw_only=True)
class Sent:
    """What a slot's partition of the work topic holds: (epoch, WorkItem), oldest first. complete: from its beginning;
    else the topic has let older ones go."""

    items: list[tuple[int, Entry]]
    complete: bool = True


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """differing: where replayed and recorded dispatches differ, one line a slot; unchecked: replayed dispatches that
    the work topic no longer holds."""

    differing: list[str]
    unchecked: int


def compare(codec: Codec, replayed: list[Dispatched], recorded: Mapping[int, Sent]) -> Comparison:
    """The replay's dispatches beside those that were sent, slot by slot.

    Repeats of a dispatch id count once, as for workers. From a slot's first replayed dispatch on, the partition must
    hold exactly the replayed items, whole, in this order, until the last of them.
    """
    differing: list[str] = []
    unchecked = 0
    by_slot: dict[int, list[Dispatched]] = {}
    for dispatched in replayed:
        by_slot.setdefault(dispatched.slot, []).append(dispatched)
    for slot, ours in sorted(by_slot.items()):
        sent = recorded.get(slot, Sent(items=[]))
        theirs = _without_repeats(sent.items)
        places = {item["dispatch_id"]: place for place, (_, item) in enumerate(theirs)}
        if not sent.complete:
            gone = next((n for n, one in enumerate(ours) if one.item["dispatch_id"] in places), len(ours))
            unchecked += gone
            ours = ours[gone:]
        if ours and (difference := _difference(codec, ours, theirs, places)) is not None:
            differing.append(f"slot {slot}: {difference}")
    return Comparison(differing=differing, unchecked=unchecked)


def _difference(
    codec: Codec, ours: list[Dispatched], theirs: list[tuple[int, Entry]], places: Mapping[str, int]
) -> str | None:
    """The first difference of a slot."""
    begin = places.get(ours[0].item["dispatch_id"], len(theirs))
    for place, dispatched in enumerate(ours, begin):
        if place >= len(theirs):
            return f"{dispatched.item['dispatch_id']} was never sent to it"
        epoch, item = theirs[place]
        sent = as_sent(codec, dispatched)
        if epoch != dispatched.epoch or item != sent:
            return (
                f"recorded {item['dispatch_id']}, replayed {sent['dispatch_id']} at place {place - begin + 1}"
                f"{_fields(item, sent)}"
            )
    return None


def _without_repeats(items: list[tuple[int, Entry]]) -> list[tuple[int, Entry]]:
    seen: set[str] = set()
    kept = []
    for epoch, item in items:
        if item["dispatch_id"] not in seen:
            seen.add(item["dispatch_id"])
            kept.append((epoch, item))
    return kept


def as_sent(codec: Codec, dispatched: Dispatched) -> Entry:
    """The item as a reader of the work topic sees it."""
    batch = {"slot": dispatched.slot, "epoch": dispatched.epoch, "items": [dispatched.item], "controls": []}
    item: Entry = codec.decode(codec.encode("work_batch", batch))["items"][0]
    return item


def _fields(recorded: Entry, replayed: Entry) -> str:
    """The names of fields that differ in the same dispatch."""
    if recorded["dispatch_id"] != replayed["dispatch_id"]:
        return ""
    return " with other " + ", ".join(name for name in recorded if recorded[name] != replayed.get(name))
