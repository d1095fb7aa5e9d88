"""When a role takes itself for stuck."""

from streams.agents.role import stalled


def test_a_partition_whose_records_are_not_read_is_stalled() -> None:
    assert stalled({0: 9, 1: 4}, {0: 10, 1: 10}) == [1]


def test_a_partition_that_was_never_read_is_stalled() -> None:
    assert stalled({}, {3: 1}) == [3]


def test_what_stands_behind_an_open_transaction_is_no_stall() -> None:
    """The last stable offset does not move past it, however much is written."""
    assert stalled({0: 9}, {0: 10}) == []
    assert stalled({}, {0: 0}) == []
