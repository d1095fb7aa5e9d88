"""What a slot takes from its partition, and which offset it may commit."""

from hypothesis import given
from hypothesis import strategies as st

from inference import intake as module
from inference.intake import Intake
from tests.unit.worker.items import batch, item_record


def intake() -> Intake:
    return Intake(slot=0, epoch=5, start_offset=100)


def taken(source: Intake) -> list[str]:
    names = []
    while (item := source.take()) is not None:
        names.append(item.job_id)
    return names


def test_items_keep_their_order_over_and_within_batches() -> None:
    source = intake()
    source.add(100, batch(item_record("a"), item_record("b")))
    source.add(101, batch(item_record("c")))
    assert source.waiting == 3
    assert taken(source) == ["a", "b", "c"]


def test_other_epochs_and_slots_are_ignored() -> None:
    source = intake()
    source.add(100, batch(item_record("old"), epoch=4))
    source.add(101, batch(item_record("new"), epoch=6))
    source.add(102, batch(item_record("foreign"), slot=1))
    assert source.add(103, batch(epoch=4, cancel=(item_record("mine"),))) == []
    source.add(104, batch(item_record("mine")))
    assert taken(source) == ["mine"]
    assert not source.is_canceled("mine/generate/1")


def test_a_dispatch_is_taken_once_but_its_next_attempt_is_another() -> None:
    source = intake()
    source.add(100, batch(item_record("a"), item_record("a")))
    source.add(101, batch(item_record("a")))
    assert taken(source) == ["a"]
    source.settle("a/generate/1")
    source.add(102, batch(item_record("a"), item_record("a", attempt=2)))
    assert taken(source) == ["a"]


def test_a_cancel_holds_whenever_it_comes() -> None:
    source = intake()
    assert source.add(100, batch(cancel=(item_record("early"),))) == ["early/generate/1"]
    source.add(101, batch(item_record("early"), item_record("late")))
    assert source.is_canceled("early/generate/1")
    assert not source.is_canceled("late/generate/1")
    assert source.add(102, batch(cancel=(item_record("late"),))) == ["late/generate/1"]
    assert source.is_canceled("late/generate/1")
    assert not source.is_canceled("late/generate/2")


def test_the_offset_waits_for_the_oldest_record_with_open_work() -> None:
    source = intake()
    assert (source.commit_offset, source.last_offset) == (100, 99)
    source.add(100, batch(item_record("a"), item_record("b")))
    source.add(101, batch(item_record("c")))
    source.skip(102)
    assert (source.commit_offset, source.last_offset) == (100, 102)
    assert source.dispatch_ids == ("a/generate/1", "b/generate/1", "c/generate/1")
    source.settle("c/generate/1")
    source.settle("a/generate/1")
    assert source.commit_offset == 100
    source.settle("b/generate/1")
    assert source.commit_offset == 103
    source.settle("unknown")
    assert source.commit_offset == 103


def test_a_new_epoch_forgets_the_old_ones_work() -> None:
    source = intake()
    source.add(100, batch(item_record("a")))
    source.begin_epoch(6)
    assert (source.waiting, source.dispatch_ids, source.commit_offset) == (0, (), 101)
    source.settle("a/generate/1")
    source.add(101, batch(item_record("b"), epoch=5))
    source.add(102, batch(item_record("c"), epoch=6))
    assert taken(source) == ["c"]


def test_memory_is_bounded() -> None:
    memory = module._Memory()
    for number in range(module.REMEMBERED + 5):
        memory.add(str(number))
    assert "4" not in memory
    assert "5" in memory


@given(st.lists(st.lists(st.integers(0, 12), max_size=3), max_size=8), st.data())
def test_the_commit_offset_never_passes_open_work(records: list[list[int]], data: st.DataObject) -> None:
    source = Intake(slot=0, epoch=5, start_offset=0)
    where: dict[str, int] = {}
    for offset, jobs in enumerate(records):
        for job in jobs:
            where.setdefault(f"{job}/generate/1", offset)
        source.add(offset, batch(*(item_record(str(job)) for job in jobs)))
    for name in data.draw(st.permutations(sorted(where))):
        source.settle(name)
        del where[name]
        assert source.commit_offset == min(where.values(), default=len(records))
