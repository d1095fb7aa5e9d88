"""Admission's shell: requests, commands, tenants, ended jobs and ticks, each partition in order.

For a batch of records: the ledger decides all, at once and without waiting; then go the rows (the decisions as one
segment a partition, held jobs) with the job events, then inbox entries and answers, then deletions of rows that are
not needed any more, each group acknowledged before the next; then the batch is acknowledged. A crash in between
repeats, never forgets: what was written is answered from the rows, what was not is decided anew.
"""

import asyncio
import hmac
from collections.abc import Iterable
from functools import partial

import structlog

from schemas.codec import Codec, Record
from schemas.errors import CodecError
from schemas.pipelines import WORKFLOWS
from schemas.topics import COMMANDS, TENANTS, TICKS, USERS_CLOSED, requests_topic
from streams.agents.admission_records import (
    Sends,
    answer,
    answer_records,
    inbox_records,
    request_events,
    tell_end,
)
from streams.agents.admission_tables import Tables
from streams.agents.assignor import shard_assignor
from streams.agents.batches import Incoming
from streams.agents.load_watch import LoadWatch
from streams.agents.role import FaustRole, Pulse
from streams.app import make_app
from streams.kafka.consumer import end_offset, read_all
from streams.kafka.producer import AsyncProducer, Outgoing
from streams.policy.admission import Came
from streams.policy.admission_rows import BucketRow, End, Held, UserRow
from streams.policy.bucket import Bucket, Limit, is_full
from streams.policy.config import DEFAULT, Policy, load_policy
from streams.policy.submissions import Standing, standing_of
from streams.policy.validation import MAX_REQUEST_BYTES, Sender, fault
from streams.settings import StreamsSettings

log = structlog.get_logger(__name__)
MAX_RECORDS = 500
TICK_SECONDS = 5.0
# How often it is looked whether something held is due, and how long a tick may be on its way before another is sent.
LOOK_SECONDS = 0.05
TICK_PATIENCE_MS = 1_000
SIGNATURE_HEADER = "meshyard-signature"
GATEWAY = "gateway"


def admission_group(shard: int, shards: int) -> str:
    """Consumer group (and Faust app id) of an admission shard."""
    return f"meshyard-admission-{shard}-of-{shards}"


def input_topics() -> tuple[str, ...]:
    """What admission reads; all have the same partitions."""
    return (*map(requests_topic, WORKFLOWS), COMMANDS, TENANTS, USERS_CLOSED, TICKS)


class Admission:
    """The agents' common state: the tables' ledgers, the tenants' map, and the time of the next ticks."""

    def __init__(
        self, settings: StreamsSettings, codec: Codec, producer: AsyncProducer, role: FaustRole, policy: Policy
    ) -> None:
        self._settings = settings
        self._codec = codec
        self._producer = producer
        self._role = role
        self._policy = policy
        self.tables = Tables(role.app, settings.kafka.user_partitions)
        self.load = LoadWatch(settings.kafka, codec)
        self._unknown = standing_of(None, policy)
        self._standings: dict[str, Standing] = {}
        self._key_hashes: dict[str, tuple[str, bytes]] = {}  # key_id -> user_id, SHA-256 of the key
        self._keys: dict[str, list[str]] = {}  # user_id -> key_ids of its newest row
        self._ticks: dict[int, int] = {}  # partition -> when its newest tick was sent, by our clock
        self._ticking: set[int] = set()  # partitions whose newest tick has not come back
        self._turns: dict[int, asyncio.Future[None]] = {}  # partition -> when its newest entries have been sent
        self._ahead_ms = 0  # how much our clock is before the broker's

    def load_tenants(self) -> None:
        """Reads control.tenants whole, before the first request: its rows come first, whatever the topics' order."""
        for message in read_all(self._settings.kafka, TENANTS, range(self._settings.kafka.user_partitions)):
            value = message.value()
            try:
                self._learn(self._codec.decode(value if isinstance(value, bytes) else None, "tenant"))
            except CodecError as error:
                log.warning("tenant_unreadable", reason=error.code, offset=message.offset())

    def _learn(self, tenant: Record) -> None:
        self._forget(tenant["user_id"])
        self._standings[tenant["user_id"]] = standing_of(tenant, self._policy)
        self._keys[tenant["user_id"]] = [key["key_id"] for key in tenant["keys"]]
        for key in tenant["keys"]:
            if key["revoked_at"] is not None:
                continue
            try:
                self._key_hashes[key["key_id"]] = (tenant["user_id"], bytes.fromhex(key["sha256"]))
            except ValueError:  # the other keys of this row still count
                log.warning("key_unreadable", user_id=tenant["user_id"], key_id=key["key_id"])

    def _forget(self, user_id: str) -> None:
        """A row replaces all that its user's last row said, keys that it does not name any more included."""
        self._standings.pop(user_id, None)
        for key_id in self._keys.pop(user_id, ()):
            self._key_hashes.pop(key_id, None)

    async def _send(self, sends: Sends, records: list[Incoming]) -> None:
        """Sends in order what the records lead to. Raises KafkaException.

        Entries of a partition go to the inbox in the order in which they were decided, whichever agent decided: a held
        job that becomes due must not overtake one whose rows are still on their way.
        """
        sent: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        partitions = {record.partition for record in records} if sends.entries else set()
        before = [self._turns[partition] for partition in partitions if partition in self._turns]
        self._turns.update(dict.fromkeys(partitions, sent))
        try:
            await self._send_in_turn(sends, records, before)
        finally:
            sent.set_result(None)

    async def _send_in_turn(self, sends: Sends, records: list[Incoming], before: list["asyncio.Future[None]"]) -> None:
        newest = {record.partition: record.timestamp_ms for record in records}
        segments = [
            row for p, at in newest.items() for row in self.tables.write_segment(p, records[0].topic, at)
        ]  # fmt: skip
        await self._producer.send_all([*segments, *sends.rows])
        for earlier in before:
            await earlier
        inbox = inbox_records(self._codec, sends.entries)
        await self._producer.send_all([*inbox, *answer_records(self._codec, sends.answers), *sends.after])
        await self._producer.send_all(sends.deletions)

    def _end(self, ended: Iterable[tuple[Held, End]], sends: Sends) -> None:
        for held, end in ended:
            domain = self._settings.domain_for(held.ready["pipeline_id"])
            tell_end(self._codec, held, end, domain, sends)
            sends.deletions.append(self.tables.delete_held(held))

    # ---- requests -----------------------------------------------------------------------------------------------

    async def requests(self, workflow: str, records: list[Incoming]) -> None:
        """One batch of requests."""
        sends, outcomes = Sends(), dict[str, int]()
        for record in records:
            outcome = self._request(workflow, record, sends)
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
        await self._send(sends, records)
        log.debug("requests_decided", count=len(records), **outcomes)

    def _request(self, workflow: str, record: Incoming, sends: Sends) -> str:
        raw = record.value
        try:
            request = self._codec.decode_strict(raw, "job_requested")
        except CodecError as error:
            sends.rows.append(self._role.letter(record, reason=error.code, detail=str(error)))
            return "unreadable"
        assert raw is not None
        key = record.key.decode("utf-8", "replace") if record.key is not None else None
        user_id, now_ms = request["user_id"], record.timestamp_ms
        ledger = self.tables.ledger(record.partition)
        signer = GATEWAY if self._settings.trust_topic else self._signer(record, raw, user_id)
        sender = Sender(
            key=key, size_bytes=len(raw), at_ms=now_ms, operator=signer == GATEWAY,
            owns=lambda job_id: f"{user_id}/{job_id}" in ledger.jobs,
        )  # fmt: skip
        if signer is None:
            problem: str | None = f"signature: {SIGNATURE_HEADER} is missing or wrong; send key_id:hmac of the value"
        else:
            problem = fault(request, workflow, sender)
        if problem is not None:
            reason = problem.partition(":")[0] + "_invalid"
            sends.rows.append(self._role.letter(record, reason=reason, detail=problem))
            if len(raw) > MAX_REQUEST_BYTES:
                return "unreadable"
        standing = self._standings.get(user_id, self._unknown)
        domain = self._settings.domain_for(request["pipeline_id"])
        came = Came(place=(record.topic, record.offset), at_ms=now_ms, problem=problem)
        verdict = ledger.decide(request, raw, came, standing, domain, self.load.of(domain))
        sends.answers.append(answer(request, verdict, standing, now_ms))
        if key == user_id and signer is not None:
            sends.rows += request_events(self._codec, request, verdict, standing.tier, now_ms)
        if verdict.outcome == "accepted":
            if verdict.held is not None:
                sends.rows.append(self.tables.write_held(verdict.held))
            elif verdict.ready is not None:
                sends.entry(verdict.domain, "stage_ready", now_ms, ready=verdict.ready)
            self._end(verdict.ended, sends)
        return verdict.outcome

    def _signer(self, record: Incoming, raw: bytes, user_id: str) -> str | None:
        """Who signed a record where the topic is not trusted: the gateway, or an API key of the user. None: nobody."""
        found = dict(record.headers or ()).get(SIGNATURE_HEADER)
        name, _, digest = found.decode("ascii", "replace").partition(":") if found else ("", "", "")
        secret: bytes | None = None
        if name == GATEWAY:
            secret = self._settings.server_key
        elif name in self._key_hashes and self._key_hashes[name][0] == user_id:
            secret = self._key_hashes[name][1]
        if secret is None or not hmac.compare_digest(
            hmac.digest(secret, raw, "sha256").hex().encode(), digest.encode()
        ):
            return None
        return name

    # ---- the other inputs ---------------------------------------------------------------------------------------

    async def commands(self, records: list[Incoming]) -> None:
        """Held jobs are dealt with here; all else goes on to the scheduler, which knows where a job stands."""
        sends = Sends()
        for record in records:
            try:
                command = self._codec.decode_strict(record.value, "command")
            except CodecError as error:
                sends.rows.append(self._role.letter(record, reason=error.code, detail=str(error)))
                continue
            problem = _command_fault(command, (record.key or b"").decode("utf-8", "replace"))
            if problem is None:
                self._command(command, record, sends)
            else:
                reason = problem.partition(":")[0] + "_invalid"
                sends.rows.append(self._role.letter(record, reason=reason, detail=problem))
        await self._send(sends, records)

    def _command(self, command: Record, record: Incoming, sends: Sends) -> None:
        ledger, at = self.tables.ledger(record.partition), record.timestamp_ms
        kind, user_id, job_id = command["kind"], command["user_id"], command["job_id"]
        if kind == "cancel":
            found = ledger.cancel(user_id, job_id, command["reason"], at)
            if isinstance(found, tuple):
                self._end([found], sends)
            elif found is not None:
                cancel = {"job_id": job_id, "user_id": user_id, "reason": command["reason"]}
                for domain in (found,) if found else self._settings.kafka.every_domain:
                    sends.entry(domain, "cancel", at, cancel=cancel)
            return
        changed = ledger.control(kind, user_id, job_id, command["priority"])
        sends.rows += [self.tables.write_held(held) for held in changed]
        if job_id and changed:
            return
        control = {"kind": kind, "job_id": job_id, "user_id": user_id, "priority": command["priority"]}
        domain = ledger.domain_of(user_id, job_id)
        for name in (domain,) if domain else self._settings.kafka.every_domain:
            sends.entry(name, "control", at, control=control)

    async def tenants(self, records: list[Incoming]) -> None:
        """Standings change here at once, shares at the schedulers."""
        sends = Sends()
        for record in records:
            user_id = (record.key or b"").decode("utf-8", "replace")
            if record.value is None:  # a tombstone: the user is gone, the free tier is left
                self._forget(user_id)
                share = {"user_id": user_id, "tier": self._unknown.tier, "weight": 1.0, "max_running": None}
            else:
                try:
                    tenant = self._codec.decode_strict(record.value, "tenant")
                except CodecError as error:
                    sends.rows.append(self._role.letter(record, reason=error.code, detail=str(error)))
                    continue
                self._learn(tenant)
                share = {name: tenant[name] for name in ("user_id", "tier", "weight", "max_running")}
            for domain in self._settings.kafka.every_domain:
                sends.entry(domain, "tenant_changed", record.timestamp_ms, tenant=share)
        await self._send(sends, records)

    async def closed(self, records: list[Incoming]) -> None:
        """Ended jobs make room in their users' backlogs."""
        sends = Sends()
        for record in records:
            try:
                closed = self._codec.decode(record.value, "user_closed")
            except CodecError as error:
                sends.rows.append(self._role.letter(record, reason=error.code, detail=str(error)))
                continue
            ledger = self.tables.ledger(record.partition)
            ledger.close(closed["user_id"], closed["job_ids"], record.timestamp_ms)
        await self._send(sends, records)

    # ---- time ---------------------------------------------------------------------------------------------------

    async def ticks(self, records: list[Incoming]) -> None:
        """Releases what is due and forgets what is old, each partition by its own tick."""
        sends = Sends()
        for record in {record.partition: record for record in records}.values():
            now_ms = record.timestamp_ms
            sent = self._codec.decode(record.value, "admission_tick")["ticked_at"]
            self._ahead_ms = max(0, sent - now_ms)
            self._ticking.discard(record.partition)
            self._end(self.tables.ledger(record.partition).tick(now_ms), sends)
            sends.deletions += self.tables.sweep(record.partition, now_ms, partial(self._is_full, now_ms))
        await self._send(sends, records)

    async def send_ticks(self) -> None:
        """A tick for each partition in which something is due, or that had none for some seconds."""
        now = self._role.clock.now_ms()
        due = [p for p in self._partitions() if self._wants_tick(p, now)]
        if not due:
            return
        for partition in due:
            self._ticks[partition] = now
            self._ticking.add(partition)
        tick = self._codec.encode("admission_tick", {"ticked_at": now})
        await self._producer.send_all([Outgoing(TICKS, None, tick, partition) for partition in due])

    def _wants_tick(self, partition: int, now: int) -> bool:
        before = self._ticks.get(partition, 0)
        if now - before >= TICK_SECONDS * 1000:
            return True
        if partition in self._ticking and now - before < TICK_PATIENCE_MS:
            return False
        due = self.tables.next_due(partition)
        return due is not None and due <= now - self._ahead_ms

    def _partitions(self) -> range:
        return range(self._settings.shard, self._settings.kafka.user_partitions, self._settings.shards)

    def _is_full(self, now_ms: int, user_id: str, row: UserRow) -> bool:
        """Whether a user's buckets are all full, so that their row says nothing."""
        standing = self._standings.get(user_id, self._unknown)

        def full(bucket: BucketRow, limit: Limit) -> bool:
            return is_full(Bucket(tokens=bucket.tokens, at_ms=bucket.at_ms), limit, now_ms)

        keys = [(bucket, standing.key_limits.get(key_id)) for key_id, bucket in row.keys.items()]
        return full(row.bucket, standing.limit) and all(limit is None or full(bucket, limit) for bucket, limit in keys)


def _command_fault(command: Record, key: str) -> str | None:
    """What is wrong with a command: the field and the remedy."""
    if key != command["user_id"]:
        return "user_id: differs from the record's key; write the user_id as the key"
    if len(command["user_id"]) + len(command["job_id"]) + len(command["reason"]) > 4_000:
        return "reason: is too long; give 2,000 characters at most"
    if command["kind"] == "cancel" and not command["job_id"]:
        return "job_id: is empty; name the job to cancel"
    if command["kind"] == "reprioritise" and not 1 <= (command["priority"] or 0) <= 5:
        return f"priority: {command['priority']} is not offered; give 1 (first) to 5"
    return None


async def admission_role(settings: StreamsSettings, codec: Codec, producer: AsyncProducer) -> FaustRole:
    """An admission shard, ready to start. Raises PolicyError for a policy file that cannot be used, WrongShards when
    admission ran with another number of shards."""
    from streams.agents.admission_shards import check_shards

    await asyncio.to_thread(check_shards, settings.kafka, settings.shards)
    partitions = settings.kafka.user_partitions
    policy = load_policy(settings.policy_file.read_text()) if settings.policy_file is not None else DEFAULT
    app = make_app(
        settings,
        admission_group(settings.shard, settings.shards),
        partitions=partitions,
        assignor=shard_assignor(settings.shard, settings.shards),
    )
    mine = range(settings.shard, partitions, settings.shards)
    pulse = Pulse(topic=TICKS, ends=lambda: {p: end_offset(settings.kafka, TICKS, p) for p in mine})
    role = FaustRole("admission", app, codec, producer, pulse)
    admission = Admission(settings, codec, producer, role, policy)
    await asyncio.to_thread(admission.load_tenants)
    role.beside(admission.load)
    for workflow in WORKFLOWS:
        role.agent(requests_topic(workflow), MAX_RECORDS, partial(admission.requests, workflow))
    role.agent(COMMANDS, MAX_RECORDS, admission.commands)
    role.agent(TENANTS, MAX_RECORDS, admission.tenants)
    role.agent(USERS_CLOSED, MAX_RECORDS, admission.closed)
    role.agent(TICKS, MAX_RECORDS, admission.ticks)
    role.every(LOOK_SECONDS, admission.send_ticks)
    return role
