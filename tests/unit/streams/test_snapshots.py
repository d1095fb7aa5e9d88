"""Which snapshot a scheduler goes on from."""

from pathlib import Path

import msgspec
import pytest

from streams.objects import ObjectStore
from streams.policy.scheduler import POLICY_VERSION
from streams.policy.state import SchedulerState, Snapshot, encode_snapshot
from streams.snapshots import KEPT, EncodedSnapshot, SnapshotOfOtherVersion, SnapshotsMissing, SnapshotStore


@pytest.fixture
def store(tmp_path: Path) -> SnapshotStore:
    return SnapshotStore(ObjectStore(f"file://{tmp_path}"), "main")


def save(store: SnapshotStore, offset: int, version: int = POLICY_VERSION) -> None:
    state = SchedulerState(next_offset=offset)
    data = encode_snapshot(Snapshot(policy_version=version, state=state))
    store.save(EncodedSnapshot(next_offset=offset, data=data))


def test_the_newest_is_taken_and_old_ones_are_removed(store: SnapshotStore, tmp_path: Path) -> None:
    assert store.newest(0) is None
    for offset in range(10, 60, 10):
        save(store, offset)
    newest = store.newest(100)
    assert newest is not None
    assert newest.next_offset == 50
    assert len(list((tmp_path / "snapshots" / "main").iterdir())) == KEPT


def test_one_that_cannot_be_read_is_passed_over(store: SnapshotStore) -> None:
    save(store, 10)
    store.save(EncodedSnapshot(next_offset=20, data=b"\x81cut"))
    newest = store.newest(30)
    assert newest is not None
    assert newest.next_offset == 10


def test_another_version_goes_on_only_where_nothing_is_to_be_folded(store: SnapshotStore) -> None:
    save(store, 10, version=POLICY_VERSION + 1)
    newest = store.newest(10)
    assert newest is not None
    assert newest.next_offset == 10
    with pytest.raises(SnapshotOfOtherVersion, match="SIGTERM") as caught:
        store.newest(11)
    assert caught.value.version == POLICY_VERSION + 1


def test_a_state_of_another_shape_is_of_another_version(store: SnapshotStore) -> None:
    data = msgspec.msgpack.encode({"policy_version": 1, "state": {"jobs": {"a": {"spec": {}}}}})
    store.save(EncodedSnapshot(next_offset=10, data=data))
    with pytest.raises(SnapshotOfOtherVersion):
        store.newest(10)


def test_a_queue_without_any_snapshot_is_not_guessed(store: SnapshotStore) -> None:
    """Every life leaves one; without it nobody knows by which policy the inbox was folded."""
    with pytest.raises(SnapshotsMissing, match="begin-anew"):
        store.newest(1)
    store.save(EncodedSnapshot(next_offset=0, data=b"junk"))
    with pytest.raises(SnapshotsMissing):
        store.newest(1)
