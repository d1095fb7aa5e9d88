"""Admission's shell: requests, commands, tenants and ticks, each partition in order.

For a batch of requests: decide all (rows of the batch seen by its later requests), send job events and wait for the
acks, send inbox entries and answers and wait, write the table rows, acknowledge. A crash in between repeats, never
forgets: decisions are functions of the record, its append time and the rows, and rows know what was applied.
"""

import hmac
import weakref
from dataclasses import dataclass, field
from typing import Any

import structlog
from faust.events import Event
from faust.streams import _current_event

from schemas.codec import Codec, Record
from schemas.errors import CodecError
from schemas.events import job_event
from schemas.jobs import Transition
from schemas.pipelines import PIPELINES, TEXT_TO_3D
from schemas.topics import (
    ADMISSION_JOBS_CHANGELOG,
    ADMISSION_USERS_CHANGELOG,
    ANSWERS,
    COMMANDS,
    EVENTS,
    TENANTS,
    TICKS,
    requests_topic,
    schedule_topic,
)
from streams.agents.assignor import shard_assignor
from streams.agents.role import FaustRole, Pulse
from streams.app import make_app
from streams.kafka.consumer import end_offset, read_all
from streams.kafka.producer import AsyncProducer, Outgoing
from streams.policy.admission import KEY_LIFE_MS, Standing, Verdict, decide, fault, standing_of
from streams.settings import StreamsSettings

log = structlog.get_logger(__name__)
MAX_REQUESTS = 500
TICK_SECONDS = 5.0
WORKFLOW = TEXT_TO_3D
SIGNATURE_HEADER = "meshyard-signature"


def admission_group(shard: int, shards: int) -> str:
    """Consumer group (and Faust app id) of an admission shard."""
    return f"meshyard-admission-{shard}-of-{shards}"


@dataclass
class _Batch:
    """What a batch of requests leads to."""

    events: list[Outgoing] = field(default_factory=list)
    answers: list[Outgoing] = field(default_factory=list)
    entries: list[Record] = field(default_factory=list)
    job_rows: dict[str, tuple[Event, Record]] = field(default_factory=dict)
    user_rows: dict[str, tuple[Event, Record]] = field(default_factory=dict)


class Admission:
    """The agents' common state: Faust tables, the tenants' map, and what derives from them."""

    def __init__(self, settings: StreamsSettings, codec: Codec, producer: AsyncProducer, role: FaustRole) -> None:
        self._settings = settings
        self._codec = codec
        self._producer = producer
        self._role = role
        partitions = settings.kafka.user_partitions
        self.jobs = _table(role.app, "admission-jobs", ADMISSION_JOBS_CHANGELOG, partitions)
        self.users = _table(role.app, "admission-users", ADMISSION_USERS_CHANGELOG, partitions)
        self._standings: dict[str, Standing] = {}
        self._key_hashes: dict[str, tuple[str, bytes]] = {}  # key_id -> user_id, SHA-256 of the key

    def load_tenants(self) -> None:
        """Reads control.tenants whole, before the first request: its rows come first, whatever the topics' order."""
        for message in read_all(self._settings.kafka, TENANTS, range(self._settings.kafka.user_partitions)):
            value = message.value()
            try:
                self._learn(self._codec.decode(value if isinstance(value, bytes) else None, "tenant"))
            except CodecError as error:
                log.warning("tenant_unreadable", reason=error.code, offset=message.offset())

    def _learn(self, tenant: Record) -> None:
        self._standings[tenant["user_id"]] = standing_of(tenant)
        for key in tenant["keys"]:
            self._key_hashes.pop(key["key_id"], None)
            if key["revoked_at"] is not None:
                continue
            try:
                self._key_hashes[key["key_id"]] = (tenant["user_id"], bytes.fromhex(key["sha256"]))
            except ValueError:  # the other keys of this row still count
                log.warning("key_unreadable", user_id=tenant["user_id"], key_id=key["key_id"])

    # ---- requests -----------------------------------------------------------------------------------------------

    async def requests(self, events: list[Any]) -> None:
        """One batch of requests."""
        batch = _Batch()
        for event in events:
            await self._request(event, batch)
        await self._producer.send_all(batch.events)
        inbox = [self._inbox(batch.entries)] if batch.entries else []
        await self._producer.send_all([*inbox, *batch.answers])
        for table, rows in ((self.jobs, batch.job_rows), (self.users, batch.user_rows)):
            for key, (event, row) in rows.items():
                _current_event.set(weakref.ref(event))  # the changelog partition is the event's
                table[key] = row

    async def _request(self, event: Any, batch: _Batch) -> None:
        message = event.message
        try:
            request = self._codec.decode_strict(message.value, "job_requested")
        except CodecError as error:
            await self._role.bury(event, reason=error.code, detail=str(error))
            return
        key = message.key.decode("utf-8", "replace") if message.key is not None else None
        problem = self._forgery(event, request) or fault(request, key, WORKFLOW)
        if problem is not None:
            await self._role.bury(event, reason=problem.partition(":")[0] + "_invalid", detail=problem)
        user_id, job_key = request["user_id"], f"{request['user_id']}/{request['job_id']}"
        now_ms = int(message.timestamp * 1000)
        standing = self._standings.get(user_id) or standing_of(None)
        verdict = decide(
            request,
            problem=problem,
            source=(message.topic, message.partition, message.offset),
            now_ms=now_ms,
            standing=standing,
            user_row=batch.user_rows[user_id][1] if user_id in batch.user_rows else self.users.get(user_id),
            job_row=batch.job_rows[job_key][1] if job_key in batch.job_rows else self.jobs.get(job_key),
        )
        if verdict.job_row is not None:
            batch.job_rows[job_key] = (event, {**verdict.job_row, "partition": message.partition})
        if verdict.user_row is not None:
            batch.user_rows[user_id] = (event, verdict.user_row)
        self._answer(request, verdict, standing, now_ms, batch)
        if key == user_id:
            self._tell(request, verdict, now_ms, batch)
        say = log.debug if verdict.outcome in ("accepted", "duplicate") else log.info
        say(
            "request_decided",
            job_id=request["job_id"],
            request_id=request["request_id"],
            outcome=verdict.outcome,
            code=verdict.code,
            trace=request["traceparent"],
        )

    def _tell(self, request: Record, verdict: Verdict, now_ms: int, batch: _Batch) -> None:
        """The job's event, and its first stage for the scheduler."""
        pipeline = PIPELINES.get(request["pipeline_id"])
        count = len(pipeline.stages) if pipeline else 0
        if verdict.outcome == "rejected":
            told = job_event(
                request, Transition.REJECTED, at=now_ms, stage_count=count, error_class=verdict.code,
                error_message=verdict.detail,
            )  # fmt: skip
            # A key that was refused stays free, so each refusal is an event of its own.
            told["event_id"] = f"{told['event_id'][:16]}{request['request_id'].replace('-', '')[:16]:0>16}"
        elif verdict.outcome == "accepted" and pipeline is not None:
            told = job_event(request, Transition.QUEUED, at=now_ms, stage_count=count)
            ready = {**request, "stage": pipeline.stages[0].name, "artefacts": []}
            batch.entries.append({"kind": "stage_ready", "at": now_ms, "ready": ready})
        else:
            return
        batch.events.append(Outgoing(EVENTS, request["job_id"], self._codec.encode("job_event", told)))

    def _answer(self, request: Record, verdict: Verdict, standing: Standing, now_ms: int, batch: _Batch) -> None:
        answer = {
            "request_id": request["request_id"],
            "job_id": request["job_id"],
            "user_id": request["user_id"],
            "outcome": verdict.outcome,
            "code": verdict.code,
            "detail": verdict.detail,
            "retry_after_ms": verdict.retry_after_ms,
            "limit_requests": standing.limit.burst_requests,
            "remaining_requests": verdict.remaining,
            "reset_ms": verdict.reset_ms,
            "answered_at": now_ms,
        }
        batch.answers.append(Outgoing(ANSWERS, request["request_id"], self._codec.encode("admission_answer", answer)))

    def _inbox(self, entries: list[Record]) -> Outgoing:
        topic = schedule_topic(self._settings.kafka.domain)
        return Outgoing(topic, "admission", self._codec.encode("inbox_batch", {"entries": entries}))

    def _forgery(self, event: Any, request: Record) -> str | None:
        """Where the topic is not trusted, who writes must prove to be a gateway or the user."""
        if self._settings.trust_topic:
            return None
        found = dict(event.message.headers or {}).get(SIGNATURE_HEADER)
        name, _, digest = found.decode("ascii", "replace").partition(":") if found else ("", "", "")
        secret: bytes | None = None
        if name == "gateway":
            secret = self._settings.server_key
        elif name in self._key_hashes and self._key_hashes[name][0] == request["user_id"]:
            secret = self._key_hashes[name][1]
        if secret is None or not hmac.compare_digest(hmac.digest(secret, event.message.value, "sha256").hex(), digest):
            return f"signature: header {SIGNATURE_HEADER} is missing or wrong; send key_id:hmac of the value"
        return None

    # ---- the other inputs ---------------------------------------------------------------------------------------

    async def commands(self, events: list[Any]) -> None:
        """Cancels go on to the scheduler, which knows whose job it is and where it stands."""
        entries = []
        for event in events:
            try:
                command = self._codec.decode_strict(event.message.value, "command")
            except CodecError as error:
                await self._role.bury(event, reason=error.code, detail=str(error))
                continue
            if (event.message.key or b"").decode("utf-8", "replace") != command["user_id"]:
                detail = "user_id: differs from the record's key; write the user_id as the key"
                await self._role.bury(event, reason="user_id_invalid", detail=detail)
                continue
            cancel = {name: command[name] for name in ("job_id", "user_id", "reason")}
            entries.append({"kind": "cancel", "at": int(event.message.timestamp * 1000), "cancel": cancel})
        if entries:
            await self._producer.send_all([self._inbox(entries)])

    async def tenants(self, events: list[Any]) -> None:
        """Standings change here at once, shares at the scheduler."""
        entries = []
        for event in events:
            if event.message.value is None:  # a tombstone: the user is gone, the free tier is left
                continue
            try:
                tenant = self._codec.decode_strict(event.message.value, "tenant")
            except CodecError as error:
                await self._role.bury(event, reason=error.code, detail=str(error))
                continue
            self._learn(tenant)
            share = {name: tenant[name] for name in ("user_id", "tier", "weight")}
            entries.append({"kind": "tenant_changed", "at": tenant["updated_at"], "tenant": share})
        if entries:
            await self._producer.send_all([self._inbox(entries)])

    async def ticks(self, events: list[Any]) -> None:
        """Forgets keys that are past their life, each partition by its own tick."""
        newest = {event.message.partition: event for event in events}
        for partition, event in newest.items():
            horizon = int(event.message.timestamp * 1000) - KEY_LIFE_MS
            expired = [
                key for key, row in self.jobs.items() if row["partition"] == partition and row["at_ms"] < horizon
            ]
            _current_event.set(weakref.ref(event))
            for key in expired:
                self.jobs.pop(key)

    async def send_ticks(self) -> None:
        """One tick for each partition of this shard."""
        settings, now = self._settings, self._role.clock.now_ms()
        tick = self._codec.encode("admission_tick", {"ticked_at": now})
        mine = range(settings.shard, settings.kafka.user_partitions, settings.shards)
        await self._producer.send_all([Outgoing(TICKS, None, tick, partition) for partition in mine])


async def admission_role(settings: StreamsSettings, codec: Codec, producer: AsyncProducer) -> FaustRole:
    """An admission shard, ready to start."""
    partitions = settings.kafka.user_partitions
    app = make_app(
        settings,
        admission_group(settings.shard, settings.shards),
        partitions=partitions,
        assignor=shard_assignor(settings.shard, settings.shards),
    )
    mine = range(settings.shard, partitions, settings.shards)
    pulse = Pulse(topic=TICKS, ends=lambda: {p: end_offset(settings.kafka, TICKS, p) for p in mine})
    role = FaustRole("admission", app, codec, producer, pulse)
    admission = Admission(settings, codec, producer, role)
    admission.load_tenants()
    inputs = {
        requests_topic(WORKFLOW): admission.requests,
        COMMANDS: admission.commands,
        TENANTS: admission.tenants,
        TICKS: admission.ticks,
    }
    for topic, work in inputs.items():
        role.agent(topic, MAX_REQUESTS, work)
    role.every(TICK_SECONDS, admission.send_ticks)
    return role


def _table(app: Any, name: str, changelog: str, partitions: int) -> Any:
    return app.Table(
        name,
        default=None,
        partitions=partitions,
        key_type=str,
        changelog_topic=app.topic(changelog, partitions=partitions, compacting=True, value_serializer="json"),
    )
