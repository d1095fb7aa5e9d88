"""The watch over Faust: what was fetched and never given to an agent is told, and nothing else is."""

from hypothesis import given
from hypothesis import strategies as st

from streams.agents.transport import BULK_RATE, PROMPT_RATE, Pace, Sequence


def test_what_comes_in_order_is_never_missed() -> None:
    sequence = Sequence()
    for offset in (5, 6, 9):  # transaction markers leave holes that were never fetched
        sequence.fetched(offset)
    assert [sequence.given(offset) for offset in (5, 6, 9)] == [[], [], []]


def test_a_dropped_record_is_told_once() -> None:
    sequence = Sequence()
    for offset in range(5):
        sequence.fetched(offset)
    assert sequence.given(1) == [0]
    assert sequence.given(4) == [2, 3]


def test_records_that_come_again_after_a_seek_are_no_drops() -> None:
    sequence = Sequence()
    for offset in (0, 1, 2):
        sequence.fetched(offset)
    assert sequence.given(0) == []
    assert sequence.given(1) == []
    for offset in (0, 1, 2, 3):  # the seek went back
        sequence.fetched(offset)
    assert [sequence.given(offset) for offset in (0, 1, 2, 3)] == [[], [], [], []]


@given(st.sets(st.integers(0, 60), min_size=1), st.data())
def test_every_drop_is_told(offsets: set[int], data: st.DataObject) -> None:
    kept = data.draw(st.sets(st.sampled_from(sorted(offsets))))
    kept.add(max(offsets))
    sequence, told = Sequence(), []
    for offset in sorted(offsets):
        sequence.fetched(offset)
        if offset in kept:
            told += sequence.given(offset)
    assert told == sorted(offsets - kept)


def test_records_that_come_fast_are_fetched_in_bulk_until_they_are_few() -> None:
    pace = Pace()
    begin = 1000.0
    pace.note(0, begin)
    assert not pace.note(int(0.9 * BULK_RATE), begin + 1)
    assert not pace.note(1_000, begin + 1.1), "one large answer does not decide before its window has passed"
    assert pace.note(0, begin + 2)
    assert pace.note(int(1.1 * PROMPT_RATE), begin + 3), "between the two rates it stays as it is"
    assert not pace.note(int(0.9 * PROMPT_RATE), begin + 4)
