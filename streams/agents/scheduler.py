"""The scheduler's shell: reads the inbox, folds it, sends what the fold decides, then acknowledges.

Sends of a batch go in two steps: job events are acked before the work that lets the next actor start. A failed send
ends the process with the batch unacknowledged; the next life folds it again and sends the same, with the same ids.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

import structlog

from schemas.codec import Codec, Record
from schemas.errors import CodecError
from schemas.topics import EVENTS, LOAD, schedule_topic, work_topic
from streams.agents.role import FaustRole, Pulse
from streams.app import make_app
from streams.kafka.consumer import committed_offset, end_offset, first_offset, read_range
from streams.kafka.producer import AsyncProducer, Outgoing
from streams.policy.decisions import Decision, Dispatch, Refuse, Report, StopWork, Tell
from streams.policy.scheduler import Scheduler, SchedulerPolicy
from streams.settings import StreamsSettings
from streams.snapshots import SnapshotStore

log = structlog.get_logger(__name__)
MAX_RECORDS = 256


class InboxGap(RuntimeError):
    """The inbox no longer holds the records after the newest snapshot: the queue cannot be rebuilt."""

    def __init__(self, wanted: int, low: int) -> None:
        super().__init__(
            f"the newest snapshot needs inbox offset {wanted}, the oldest kept is {low}; "
            "keep the inbox longer than its snapshots, then resubmit the jobs between"
        )


def scheduler_group(domain: str) -> str:
    """Consumer group (and Faust app id) of a domain's scheduler."""
    return f"meshyard-scheduler-{domain}"


def recover(settings: StreamsSettings, codec: Codec, snapshots: SnapshotStore, policy: SchedulerPolicy) -> Scheduler:
    """Newest snapshot, then the inbox up to the group's committed offset, silently: those sends were acked.

    Raises InboxGap when records between them are gone.
    """
    topic = schedule_topic(policy.domain)
    scheduler = Scheduler(policy, snapshots.newest())
    committed = committed_offset(settings.kafka, scheduler_group(policy.domain), topic, 0) or 0
    start, low = scheduler.state.next_offset, first_offset(settings.kafka, topic, 0)
    if 0 < start < low:
        raise InboxGap(start, low)
    folded = 0
    for message in read_range(settings.kafka, topic, 0, start=start, end=committed):
        value = message.value()
        try:
            record = codec.decode(value if isinstance(value, bytes) else None, "inbox_batch")
        except CodecError:
            continue  # it went to the dead letters in its time
        scheduler.apply(message.offset() or 0, record)
        folded += 1
    log.info("scheduler_recovered", snapshot=start, committed=committed, folded=folded, jobs=len(scheduler.state.jobs))
    return scheduler


class SchedulerShell:
    """Carries out a batch of inbox records; knows nothing of Faust."""

    def __init__(
        self, scheduler: Scheduler, codec: Codec, producer: AsyncProducer, snapshots: SnapshotStore, entries: int
    ) -> None:
        self.scheduler = scheduler
        self.live_slots: dict[int, int] = _live(scheduler)  # slot -> epoch, for the slot monitor's thread
        self._codec = codec
        self._producer = producer
        self._snapshots = snapshots
        self._snapshot_entries = entries
        self._entries_since = 0
        # Held from the fold of a batch to the acks of its sends: a snapshot must not hold decisions that nobody got.
        self.lock = asyncio.Lock()

    def decide(self, offset: int, record: Mapping[str, Any]) -> list[Decision]:
        """Folds one record."""
        self._entries_since += len(record["entries"])
        return self.scheduler.apply(offset, record)

    async def carry_out(self, decisions: list[Decision]) -> None:
        """Sends everything and waits for the acks. Raises KafkaException."""
        encode = self._codec.encode
        events = [
            Outgoing(EVENTS, d.event["job_id"], encode("job_event", d.event)) for d in decisions if isinstance(d, Tell)
        ]
        await self._producer.send_all(events)
        later = [
            Outgoing(work_topic(self.scheduler.policy.domain), str(slot), encode("work_batch", batch), slot)
            for (slot, _), batch in _work(decisions).items()
        ]
        loads = [d.load for d in decisions if isinstance(d, Report)]
        if loads:
            later.append(Outgoing(LOAD, loads[-1]["domain"], encode("domain_load", loads[-1])))
        await self._producer.send_all(later)
        self.live_slots = _live(self.scheduler)

    def snapshot_due(self) -> bool:
        """Whether so many entries came that a snapshot should be taken."""
        return self._entries_since >= self._snapshot_entries

    async def snapshot(self) -> None:
        """Stores the state as it stands between two batches, if anything came since the last time."""
        async with self.lock:
            if not self._entries_since:
                return
            self._entries_since = 0
            taken = self._snapshots.encode(self.scheduler.state)
        await asyncio.to_thread(self._snapshots.save, taken)


def _live(scheduler: Scheduler) -> dict[int, int]:
    return {slot.slot: slot.epoch for slot in scheduler.state.slots.values()}


def _work(decisions: list[Decision]) -> dict[tuple[int, int], Record]:
    """One WorkBatch for each slot and epoch, in the order of the decisions."""
    found: dict[tuple[int, int], Record] = {}
    for d in decisions:
        if isinstance(d, (Dispatch, StopWork)):
            batch = found.setdefault((d.slot, d.epoch), {"slot": d.slot, "epoch": d.epoch, "items": [], "controls": []})
            if isinstance(d, Dispatch):
                batch["items"].append(d.item)
            else:
                batch["controls"].append({"kind": "cancel", "job_id": d.job_id, "stage": d.stage, "attempt": d.attempt})
    return found


async def scheduler_role(
    settings: StreamsSettings, codec: Codec, producer: AsyncProducer, snapshots: SnapshotStore
) -> tuple[FaustRole, SchedulerShell]:
    """The scheduler of a domain: recovered, and ready to start."""
    domain = settings.kafka.domain
    policy = SchedulerPolicy(domain=domain)
    scheduler = await asyncio.to_thread(recover, settings, codec, snapshots, policy)
    shell = SchedulerShell(scheduler, codec, producer, snapshots, settings.snapshot_entries)
    app = make_app(settings, scheduler_group(domain), partitions=1)
    topic = schedule_topic(domain)
    pulse = Pulse(topic=topic, ends=lambda: {0: end_offset(settings.kafka, topic, 0)})
    role = FaustRole("scheduler", app, codec, producer, pulse)

    async def work(events: list[Any]) -> None:
        decisions: list[Decision] = []
        for event in events:
            try:
                record = codec.decode(event.message.value, "inbox_batch")
            except CodecError as error:
                await role.bury(event, reason=error.code, detail=str(error))
                continue
            for decision in shell.decide(event.message.offset, record):
                if isinstance(decision, Refuse):
                    await role.bury(event, reason="refused", detail=f"entry {decision.entry}: {decision.detail}")
                else:
                    decisions.append(decision)
        await shell.carry_out(decisions)

    async def locked(events: list[Any]) -> None:
        async with shell.lock:
            await work(events)
        if shell.snapshot_due():
            await shell.snapshot()

    role.agent(schedule_topic(domain), MAX_RECORDS, locked)

    async def tick() -> None:
        entry = {"kind": "tick", "at": role.clock.now_ms()}
        await producer.send(schedule_topic(domain), "tick", codec.encode("inbox_batch", {"entries": [entry]}))

    role.every(1.0, tick)
    role.every(settings.snapshot_seconds, shell.snapshot)
    return role, shell
