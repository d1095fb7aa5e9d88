"""The scheduler's shell: carries out what the fold decides; knows nothing of Faust.

Sends of a batch go in two steps: job events are acked before all that may let somebody act on them. A failed send
raises; the batch is then repeated by the next life, with the same ids.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import structlog

from schemas.codec import Codec, Record
from schemas.events import dispatch_id
from schemas.topics import (
    DEAD,
    EVENTS,
    LOAD,
    PLATFORM_EVENTS,
    ROUTING,
    USERS_CLOSED,
    schedule_topic,
    work_topic,
)
from streams.clock import Clock
from streams.kafka.producer import AsyncProducer, Outgoing
from streams.policy.decisions import Closed, Dead, Decision, Dispatch, Platform, Report, Route, StopWork, Tell
from streams.policy.scheduler import Scheduler
from streams.snapshots import EncodedSnapshot, SnapshotStore

log = structlog.get_logger(__name__)

TICK_MS: Final = 1_000
# Room for one large request above what a work record may hold; an item's own fields and an artefact take about so much.
WORK_BYTES: Final = 120_000
ITEM_BYTES: Final = 600
ARTEFACT_BYTES: Final = 300


class SchedulerShell:
    """One domain's scheduler and its sends."""

    def __init__(
        self,
        scheduler: Scheduler,
        domain: str,
        codec: Codec,
        producer: AsyncProducer,
        snapshots: SnapshotStore,
        snapshot_entries: int,
    ) -> None:
        self.scheduler = scheduler
        self.domain = domain
        self._codec = codec
        self._producer = producer
        self._snapshots = snapshots
        self._snapshot_entries = snapshot_entries
        self._entries_since = 0
        self._ticked_ms = 0
        # Held from the fold of a batch to the acks of its sends: a snapshot must not hold decisions that nobody got.
        self.lock = asyncio.Lock()

    def decide(self, offset: int, record: Mapping[str, Any]) -> list[Decision]:
        """Folds one record."""
        self._entries_since += len(record["entries"])
        return self.scheduler.apply(offset, record)

    async def carry_out(self, decisions: Sequence[Decision]) -> None:
        """Sends everything and waits for the acks. Raises KafkaException."""
        encode = self._codec.encode
        told = [Outgoing(EVENTS, d.event["job_id"], encode("job_event", d.event)) for d in decisions if type(d) is Tell]
        if told:
            await self._producer.send_all(told)
        rest = [*self._work(decisions), *self._closed(decisions), *self._others(decisions)]
        if rest:
            await self._producer.send_all(rest)

    def _work(self, decisions: Sequence[Decision]) -> list[Outgoing]:
        topic = work_topic(self.domain)
        return [
            Outgoing(topic, str(batch["slot"]), self._codec.encode("work_batch", batch), batch["slot"])
            for batch in work_batches(decisions)
        ]

    def _closed(self, decisions: Sequence[Decision]) -> list[Outgoing]:
        """One record for each user, so that a batch of ends costs admission one count."""
        users: dict[str, Record] = {}
        for d in decisions:
            if type(d) is Closed:
                record = users.setdefault(d.user_id, {"user_id": d.user_id, "job_ids": [], "at": d.at})
                record["job_ids"].extend(d.job_ids)
        return [Outgoing(USERS_CLOSED, name, self._codec.encode("user_closed", r)) for name, r in users.items()]

    def _others(self, decisions: Sequence[Decision]) -> list[Outgoing]:
        """What comes seldom. Of several load reports the newest counts."""
        encode = self._codec.encode
        found = []
        report: Report | None = None
        for d in decisions:
            if type(d) is Report:
                report = d
            elif type(d) is Dead:
                key = d.letter["job"]["job_id"] if d.letter["job"] else None
                found.append(Outgoing(DEAD, key, self._codec.encode_large("dead_letter", d.letter)))
            elif type(d) is Route:
                found.append(Outgoing(ROUTING, d.rule["name"], encode("routing_rule", d.rule)))
            elif type(d) is Platform:
                found.append(Outgoing(PLATFORM_EVENTS, d.event["subject"], encode("platform_event", d.event)))
        if report is not None:
            found.append(Outgoing(LOAD, self.domain, encode("domain_load", report.load)))
        return found

    # ---- time ---------------------------------------------------------------------------------------------------

    def tick_due(self, now_ms: int) -> bool:
        """Whether the inbox needs to be told the time: each second, and sooner when the fold waits for a moment that
        has come since it was told last."""
        if now_ms - self._ticked_ms >= TICK_MS:
            return True
        due = self.scheduler.next_due_ms()
        return due is not None and self._ticked_ms < due <= now_ms

    async def tick(self, clock: Clock) -> None:
        """Appends the time to the inbox if that is due."""
        now_ms = clock.now_ms()
        if self.tick_due(now_ms):
            self._ticked_ms = now_ms
            await self.append({"kind": "tick", "at": now_ms})

    async def append(self, *entries: Record) -> None:
        """One inbox record of the scheduler's own."""
        value = self._codec.encode("inbox_batch", {"entries": list(entries)})
        await self._producer.send(schedule_topic(self.domain), entries[0]["kind"], value)

    # ---- snapshots ----------------------------------------------------------------------------------------------

    def snapshot_due(self) -> bool:
        """Whether so many entries came that a snapshot should be taken."""
        return self._entries_since >= self._snapshot_entries

    async def snapshot(self) -> None:
        """Stores the state as it stands between two batches, if anything came since the last time."""
        async with self.lock:
            taken = self.encoded_snapshot()
        if taken is not None:
            await asyncio.to_thread(self._snapshots.save, taken)

    def encoded_snapshot(self) -> EncodedSnapshot | None:
        """The state's bytes; None if nothing came since the last snapshot. Nothing is dispatched meanwhile."""
        if not self._entries_since:
            return None
        self._entries_since = 0
        began = time.perf_counter()
        taken = self._snapshots.encode(self.scheduler.state)
        log.info("snapshot_encoded", bytes=len(taken.data), held_ms=round((time.perf_counter() - began) * 1000))
        return taken

    # ---- for threads beside -------------------------------------------------------------------------------------

    def live_slots(self) -> dict[int, int]:
        """slot -> epoch of those that the fold believes to be up. Safe in any thread."""
        return {slot.slot: slot.epoch for slot in list(self.scheduler.state.slots.values())}

    def knows(self, job_id: str) -> bool:
        """Whether the fold has the job, or had it to its end. Safe in any thread."""
        return job_id in self.scheduler.state.jobs or job_id in self.scheduler.state.finished

    def folded(self) -> int:
        """The inbox offset up to which the fold has read. Safe in any thread."""
        return self.scheduler.state.next_offset

    def revision_of(self, rule: str) -> int:
        """The revision of a routing rule in force, -1 for none. Safe in any thread."""
        routed = self.scheduler.state.routing.get(rule)
        return -1 if routed is None else int(routed.rule["revision"])

    async def in_hand(self) -> dict[int, tuple[int, frozenset[str]]]:
        """slot -> its epoch and the dispatches that it should have; all of them were sent and acked."""
        async with self.lock:
            jobs = self.scheduler.state.jobs
            return {
                slot.slot: (
                    slot.epoch,
                    frozenset(dispatch_id(name, jobs[name].stage, attempt) for name, attempt in slot.jobs.items()),
                )
                for slot in self.scheduler.state.slots.values()
            }


def work_batches(decisions: Sequence[Decision]) -> list[Record]:
    """WorkBatches for each slot and epoch, in the order of the decisions; usually one, more when items are large."""
    found: list[Record] = []
    newest: dict[tuple[int, int], tuple[Record, int]] = {}
    for d in decisions:
        if type(d) is not Dispatch and type(d) is not StopWork:
            continue
        size = _size(d.item) if isinstance(d, Dispatch) else ITEM_BYTES
        batch, filled = newest.get((d.slot, d.epoch), ({}, 0))
        # A control comes after its item, in the same record or a later one.
        if not batch or filled + size > WORK_BYTES:
            batch, filled = {"slot": d.slot, "epoch": d.epoch, "items": [], "controls": []}, 0
            found.append(batch)
        newest[d.slot, d.epoch] = (batch, filled + size)
        if isinstance(d, Dispatch):
            batch["items"].append(d.item)
        else:
            batch["controls"].append({"kind": "cancel", "job_id": d.job_id, "stage": d.stage, "attempt": d.attempt})
    return found


def _size(item: Record) -> int:
    return len(item["request"]) + ITEM_BYTES + ARTEFACT_BYTES * len(item["artefacts"])
