"""Snapshots of the scheduler in the object store: `snapshots/<domain>/<offset>.msgpack`.

A snapshot names the inbox offset that it stands before and the policy version that made it. The newest usable one is
the start of a recovery; the fold of the inbox from there gives the rest. Another version of the policy would fold the
same entries to other decisions than those that were carried out, so it goes on only from a snapshot that nothing
follows: the one that the older version took when it was stopped in an orderly way.

Recovery needs the newest; a replay needs one before its window, wherever in the recorded inbox that lies. So old ones
are thinned instead of removed: the further back, the wider apart, about two for each doubling of the distance.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import structlog
from msgspec import DecodeError, ValidationError

from streams.objects import ObjectStore
from streams.policy.scheduler import POLICY_VERSION
from streams.policy.state import SchedulerState, Snapshot, decode_snapshot, encode_snapshot

log = structlog.get_logger(__name__)
NEWEST_KEPT = 3


@dataclass(frozen=True, kw_only=True)
class EncodedSnapshot:
    """A snapshot's bytes and the inbox offset that it stands before."""

    next_offset: int
    data: bytes


class SnapshotOfOtherVersion(RuntimeError):
    """The queue was last kept by another version of the scheduling policy, which was not stopped in an orderly way."""

    def __init__(self, version: int) -> None:
        self.version = version
        super().__init__(
            f"{self.__doc__} Run the release with policy version {version} once more and stop it with SIGTERM; or "
            "`python -m streams begin-anew`, which begins with an empty queue and hands in open jobs again"
        )


class SnapshotsMissing(RuntimeError):
    """The queue was kept before, and no snapshot of it can be read: by which policy it was kept is not known."""

    def __init__(self, prefix: str) -> None:
        super().__init__(
            f"{self.__doc__} Bring {prefix}/ back to the object store; or `python -m streams begin-anew`, which begins "
            "with an empty queue and hands in open jobs again"
        )


def snapshot_offset(key: str) -> int:
    """The inbox offset in a snapshot's key."""
    return int(key.rpartition("/")[2].partition(".")[0])


def superfluous(offsets: Sequence[int]) -> list[int]:
    """Which snapshots to remove, given the offsets of all, ascending.

    The newest three stay, and the oldest. Of the others one goes when the gap that it leaves is not wider than the
    distance from the gap's newer end to the newest snapshot: then a replay that begins anywhere folds at most about
    as many entries before its window as lie between that window and now, and of n snapshots about 2 log2(n) remain.
    """
    removed: list[int] = []
    newer = len(offsets) - NEWEST_KEPT
    for index in range(newer - 1, 0, -1):
        gap = offsets[newer] - offsets[index - 1]
        if gap <= offsets[-1] - offsets[newer]:
            removed.append(offsets[index])
        else:
            newer = index
    return removed


class _Version(msgspec.Struct):
    policy_version: int


class SnapshotStore:
    """Saves and finds snapshots of one domain."""

    def __init__(self, objects: ObjectStore, domain: str) -> None:
        self._objects = objects
        self._prefix = f"snapshots/{domain}"

    def encode(self, state: SchedulerState) -> EncodedSnapshot:
        """The state's bytes, made at once so that it may go on changing while they are stored."""
        data = encode_snapshot(Snapshot(policy_version=POLICY_VERSION, state=state))
        return EncodedSnapshot(next_offset=state.next_offset, data=data)

    def save(self, snapshot: EncodedSnapshot) -> None:
        """Stores a snapshot and thins the older ones."""
        self._objects.put(f"{self._prefix}/{snapshot.next_offset:020d}.msgpack", snapshot.data)
        log.info("snapshot_saved", next_offset=snapshot.next_offset, bytes=len(snapshot.data))
        keys = {snapshot_offset(key): key for key in self._objects.keys(self._prefix)}
        for offset in superfluous(sorted(keys)):
            self._objects.delete(keys[offset])

    def replace(self, snapshot: EncodedSnapshot) -> None:
        """Stores a snapshot and removes all others."""
        for key in self._objects.keys(self._prefix):
            self._objects.delete(key)
        self.save(snapshot)

    def newest(self, committed: int) -> SchedulerState | None:
        """The newest snapshot that this version of the policy can go on from, None before the first life.

        committed: the inbox offset before which all decisions were carried out. Raises SnapshotOfOtherVersion when
        there are snapshots, but only such of other versions that entries up to `committed` would have to follow;
        SnapshotsMissing when there is none to go on from and something was decided already.
        """
        others = 0
        for key in reversed(self._objects.keys(self._prefix)):
            try:
                data = self._objects.get(key)
                others = msgspec.msgpack.decode(data, type=_Version).policy_version
                snapshot = decode_snapshot(data)
            except (DecodeError, ValidationError) as error:
                log.warning("snapshot_unreadable", key=key, error=str(error))
                continue
            if snapshot.policy_version == POLICY_VERSION or snapshot.state.next_offset >= committed:
                return snapshot.state
            log.warning("snapshot_of_other_policy", key=key, version=snapshot.policy_version)
        if others not in (0, POLICY_VERSION):
            raise SnapshotOfOtherVersion(others)
        if committed > 0:
            raise SnapshotsMissing(self._prefix)
        return None
