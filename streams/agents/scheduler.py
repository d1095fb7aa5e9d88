"""The scheduler's role: recovery, then a Faust agent that folds the inbox and has the shell carry out what follows.

A failed send ends the process with the batch unacknowledged; the next life folds it again and sends the same.
"""

import asyncio

import structlog

from schemas.codec import Codec, Record
from schemas.errors import CodecError
from schemas.topics import TENANTS, schedule_topic
from streams.agents.batches import Incoming
from streams.agents.groups import scheduler_group
from streams.agents.role import FaustRole, Pulse
from streams.agents.shell import SchedulerShell
from streams.app import make_app
from streams.kafka.consumer import committed_offset, end_offset, first_offset, read_all, read_range
from streams.kafka.producer import AsyncProducer
from streams.policy.config import digest, dump_policy
from streams.policy.decisions import Decision, Refuse
from streams.policy.scheduler import Scheduler
from streams.settings import StreamsSettings, read_policy
from streams.snapshots import SnapshotStore

log = structlog.get_logger(__name__)
MAX_RECORDS = 256
MAX_ENTRIES = 500
# What is decided is sent after so many entries at the latest: slots must not wait for the rest of a long batch.
MAX_ENTRIES_A_PASS = 1_000
# How late a tick may be that retry delays and deadlines wait for.
TICK_STEP_SECONDS = 0.1


class InboxGap(RuntimeError):
    """The inbox no longer holds the records after the newest snapshot: the queue cannot be rebuilt."""

    def __init__(self, wanted: int, low: int) -> None:
        super().__init__(
            f"the newest snapshot needs inbox offset {wanted}, the oldest kept is {low}; "
            "`python -m streams begin-anew` begins with an empty queue and hands in open jobs again; "
            "keep the inbox longer than its snapshots"
        )


def recover(settings: StreamsSettings, codec: Codec, snapshots: SnapshotStore) -> Scheduler:
    """Newest snapshot, then the inbox up to the group's committed offset, silently: those sends were acked.

    The first life of all leaves a snapshot of nothing, which says by which version of the policy the inbox is folded.
    Raises InboxGap when records between them are gone, SnapshotsMissing when there are none though an earlier life was,
    SnapshotOfOtherVersion when another version of the policy must finish first.
    """
    domain = settings.kafka.domain
    topic = schedule_topic(domain)
    committed = committed_offset(settings.kafka, scheduler_group(domain), topic, 0) or 0
    state = snapshots.newest(committed)
    scheduler = Scheduler(domain, state)
    if state is None:
        snapshots.save(snapshots.encode(scheduler.state))
    start, low = scheduler.state.next_offset, first_offset(settings.kafka, topic, 0)
    if start < low and committed > start:
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


def opening_entries(scheduler: Scheduler, settings: StreamsSettings, codec: Codec, now_ms: int) -> list[Record]:
    """What a life appends to the inbox first: the policy, if it is another than the fold's; the tenants, if the fold
    has read of none: it began anew, or there are none."""
    entries: list[Record] = []
    policy = read_policy(settings.policy_file)
    if digest(policy) != digest(scheduler.state.policy):
        change = {"digest": digest(policy), "body": dump_policy(policy)}
        entries.append({"kind": "policy_changed", "at": now_ms, "policy": change})
    if not scheduler.state.tenants and scheduler.state.next_offset > 0:
        entries += [{"kind": "tenant_changed", "at": now_ms, "tenant": share} for share in _shares(settings, codec)]
    return entries


def _shares(settings: StreamsSettings, codec: Codec) -> list[Record]:
    newest: dict[str, Record] = {}
    for message in read_all(settings.kafka, TENANTS, range(settings.kafka.user_partitions)):
        value = message.value()
        try:
            tenant = codec.decode(value if isinstance(value, bytes) else None, "tenant")
        except CodecError:
            continue  # admission tells
        newest[tenant["user_id"]] = {name: tenant[name] for name in ("user_id", "tier", "weight", "max_running")}
    return list(newest.values())


async def scheduler_role(
    settings: StreamsSettings, codec: Codec, producer: AsyncProducer, snapshots: SnapshotStore
) -> tuple[FaustRole, SchedulerShell]:
    """The scheduler of a domain: recovered, and ready to start. Raises PolicyError."""
    domain = settings.kafka.domain
    topic = schedule_topic(domain)
    scheduler = await asyncio.to_thread(recover, settings, codec, snapshots)
    shell = SchedulerShell(scheduler, domain, codec, producer, snapshots, settings.snapshot_entries)
    app = make_app(settings, scheduler_group(domain), partitions=1)
    pulse = Pulse(topic=topic, ends=lambda: {0: end_offset(settings.kafka, topic, 0)})
    role = FaustRole("scheduler", app, codec, producer, pulse)
    entries = await asyncio.to_thread(opening_entries, scheduler, settings, codec, role.clock.now_ms())
    for first in range(0, len(entries), MAX_ENTRIES):
        await shell.append(*entries[first : first + MAX_ENTRIES])

    async def work(records: list[Incoming]) -> None:
        decisions: list[Decision] = []
        entries = 0
        for incoming in records:
            try:
                record = codec.decode(incoming.value, "inbox_batch")
            except CodecError as error:
                await role.bury(incoming, reason=error.code, detail=str(error))
                continue
            for decision in shell.decide(incoming.offset, record):
                if isinstance(decision, Refuse):
                    await role.bury(incoming, reason="refused", detail=f"entry {decision.entry}: {decision.detail}")
                else:
                    decisions.append(decision)
            entries += len(record["entries"])
            if entries >= MAX_ENTRIES_A_PASS:
                await shell.carry_out(decisions)
                decisions, entries = [], 0
        await shell.carry_out(decisions)

    async def locked(records: list[Incoming]) -> None:
        async with shell.lock:
            await work(records)
        if shell.snapshot_due():
            await shell.snapshot()

    role.agent(topic, MAX_RECORDS, locked)
    role.every(TICK_STEP_SECONDS, lambda: shell.tick(role.clock))
    role.every(settings.snapshot_seconds, shell.snapshot)
    return role, shell
