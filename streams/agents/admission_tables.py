"""Admission's Faust tables: recovered by Faust, written by our own producer.

Faust sends a changelog record for each changed row and lets the caller go on; here a batch's rows go out with its
other records and are acknowledged with them, so that what follows from a decision is sent only when the decision is
kept. The tables' stores hold the rows as bytes; ledgers are made of them after each recovery.
"""

import uuid
from typing import Any, Final

import msgspec
import structlog

from schemas.topics import ADMISSION_HELD_CHANGELOG, ADMISSION_JOBS_CHANGELOG
from streams.kafka.producer import Outgoing
from streams.policy.admission import Ledger
from streams.policy.admission_rows import Held, Segment, decode_held, decode_segment, encode_row
from streams.policy.segments import Extent, IsFull, extent, rewrite, sweep_plan

log = structlog.get_logger(__name__)
SWEEP_MS: Final = 10_000


class Tables:
    """The rows of this shard's partitions, and a ledger for each."""

    def __init__(self, app: Any, partitions: int) -> None:
        self._segments = _table(app, "admission-jobs", ADMISSION_JOBS_CHANGELOG, partitions)
        self._held = _table(app, "admission-held", ADMISSION_HELD_CHANGELOG, partitions)
        self._ledgers: dict[int, Ledger] | None = None
        self._extents: dict[int, dict[str, Extent]] = {}
        self._swept: dict[int, int] = {}
        self._foreign: list[bytes] = []
        # Names of segments must differ from those of earlier lives: a batch that comes again may begin with the same
        # record and hold more.
        self._life = uuid.uuid4().hex[:12]
        self._count = 0
        for table in (self._segments, self._held):
            table.on_recover(self._recovered)

    async def _recovered(self) -> None:
        """After each recovery of a table: the ledgers are made anew when they are asked for."""
        self._ledgers = None

    def ledger(self, partition: int) -> Ledger:
        """The ledger of a partition."""
        if self._ledgers is None:
            self._ledgers = self._load()
        found = self._ledgers.get(partition)
        if found is None:
            found = self._ledgers[partition] = Ledger(partition)
        return found

    def next_due(self, partition: int) -> int | None:
        """When something held in a partition is due; None when nothing is, or before the first record."""
        ledger = self._ledgers.get(partition) if self._ledgers is not None else None
        return ledger.holds.next_due() if ledger is not None else None

    def _load(self) -> dict[int, Ledger]:
        segments: dict[int, list[Segment]] = {}
        self._extents, self._foreign = {}, []
        for key, data in self._segments.data.items():
            name = key.decode()
            try:
                segment = decode_segment(data)
            except msgspec.DecodeError:  # of version 0.1: one row a job, in JSON
                self._foreign.append(key)
                continue
            partition = int(name.partition("/")[0])
            segments.setdefault(partition, []).append(segment)
            self._extents.setdefault(partition, {})[name] = extent(segment)
        held: dict[int, list[Held]] = {}
        for data in self._held.data.values():
            row = decode_held(data)
            held.setdefault(row.partition, []).append(row)
        ledgers = {p: Ledger.recovered(p, segments.get(p, ()), held.get(p, ())) for p in {*segments, *held}}
        log.info(
            "admission_recovered",
            segments=sum(map(len, segments.values())),
            jobs=sum(len(ledger.jobs) for ledger in ledgers.values()),
            held=sum(len(ledger.holds) for ledger in ledgers.values()),
        )
        return ledgers

    def write_segment(self, partition: int, topic: str, now_ms: int) -> list[Outgoing]:
        """What changed in a partition's ledger, to be sent; nothing if nothing did."""
        segment = self.ledger(partition).segment(topic, now_ms)
        return [] if segment is None else [self._put(partition, segment)]

    def write_held(self, held: Held) -> Outgoing:
        """A new or changed row of a held job."""
        key, data = held.job.encode(), encode_row(held)
        self._held.data[key] = data
        return Outgoing(ADMISSION_HELD_CHANGELOG, held.job, data, held.partition)

    def delete_held(self, held: Held) -> Outgoing:
        """Deletes the row of a job that is not held any more."""
        self._held.data.pop(held.job.encode(), None)
        return Outgoing(ADMISSION_HELD_CHANGELOG, held.job, None, held.partition)

    def sweep(self, partition: int, now_ms: int, is_full: IsFull) -> list[Outgoing]:
        """Segments written anew, and deletions of those that they replace; every ten seconds at most."""
        if now_ms - self._swept.get(partition, 0) < SWEEP_MS:
            return []
        self._swept[partition] = now_ms
        ledger, stored = self.ledger(partition), self._extents.get(partition, {})
        written = self._delete_foreign(partition)
        for keys in sweep_plan(stored, now_ms):
            segments = [decode_segment(self._segments.data[key.encode()]) for key in keys]
            kept = rewrite(ledger, segments, now_ms, is_full)
            if kept is not None:
                written.append(self._put(partition, kept))
            for key in keys:
                stored.pop(key)
                self._segments.data.pop(key.encode(), None)
                written.append(Outgoing(ADMISSION_JOBS_CHANGELOG, key, None, partition))
        return written

    def _delete_foreign(self, partition: int) -> list[Outgoing]:
        """Rows of version 0.1 are deleted from the partition in which they were found."""
        places = self._segments.data._key_partition
        mine = [key for key in self._foreign if places.get(key) == partition]
        self._foreign = [key for key in self._foreign if places.get(key) != partition]
        for key in mine:
            self._segments.data.pop(key, None)
        return [Outgoing(ADMISSION_JOBS_CHANGELOG, key.decode("utf-8", "replace"), None, partition) for key in mine]

    def _put(self, partition: int, segment: Segment) -> Outgoing:
        self._count += 1
        name = f"{partition}/{segment.topic}/{self._life}.{self._count}"
        data = encode_row(segment)
        self._segments.data[name.encode()] = data
        self._extents.setdefault(partition, {})[name] = extent(segment)
        return Outgoing(ADMISSION_JOBS_CHANGELOG, name, data, partition)


def _table(app: Any, name: str, changelog: str, partitions: int) -> Any:
    topic = app.topic(
        changelog,
        partitions=partitions,
        compacting=True,
        key_type=bytes,
        value_type=bytes,
        key_serializer="raw",
        value_serializer="raw",
        allow_empty=True,
        acks=False,
    )
    return app.Table(name, default=None, partitions=partitions, key_type=bytes, value_type=bytes, changelog_topic=topic)
