"""Which snapshot a scheduler goes on from."""

import math
from itertools import accumulate, pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.objects import ObjectStore
from streams.policy.scheduler import POLICY_VERSION
from streams.policy.state import SchedulerState, Snapshot, encode_snapshot
from streams.snapshots import (
    NEWEST_KEPT,
    EncodedSnapshot,
    SnapshotOfOtherVersion,
    SnapshotsMissing,
    SnapshotStore,
    superfluous,
)


@pytest.fixture
def store(tmp_path: Path) -> SnapshotStore:
    return SnapshotStore(ObjectStore(f"file://{tmp_path}"), "main")


def save(store: SnapshotStore, offset: int, version: int = POLICY_VERSION) -> None:
    state = SchedulerState(next_offset=offset)
    data = encode_snapshot(Snapshot(policy_version=version, state=state))
    store.save(EncodedSnapshot(next_offset=offset, data=data))


def test_the_newest_is_taken_and_old_ones_are_thinned(store: SnapshotStore, tmp_path: Path) -> None:
    assert store.newest(0) is None
    for offset in range(0, 170, 10):
        save(store, offset)
    newest = store.newest(200)
    assert newest is not None
    assert newest.next_offset == 160
    left = sorted(int(file.stem) for file in (tmp_path / "snapshots" / "main").iterdir())
    assert left[0] == 0
    assert left[-NEWEST_KEPT:] == [140, 150, 160]
    assert len(left) < 10


@given(st.lists(st.integers(min_value=1, max_value=1_000_000), min_size=1, max_size=300))
def test_what_is_left_is_a_logarithm_and_a_replay_folds_little_before_its_window(steps: list[int]) -> None:
    kept: list[int] = []
    for offset in accumulate(steps):
        kept = sorted({*kept, offset} - set(superfluous([*kept, offset])))
    newest = kept[-1]
    assert kept[0] == steps[0]
    taken = set(accumulate(steps))
    for older, newer in pairwise(kept):
        between = [offset for offset in taken if older < offset < newer]
        assert not between or newer - older <= newest - newer, "what was removed is near to one that was kept"
    assert len(kept) <= NEWEST_KEPT + 2 * (1 + math.log2(newest - kept[0] + 1))


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
