"""When a slot is taken for one that lost its work."""

from typing import Any

from streams.policy.disputes import STUCK_PAUSES, Disputes

PAUSE = 10.0
IN_HAND = {3: (7, frozenset({"job/generate/1"}))}


class Yard:
    """One slot, its partitions' ends, and what the fold has read."""

    def __init__(self) -> None:
        self.disputes = Disputes(PAUSE)
        self.now = 100.0
        self.work_end = 5
        self.inbox_end = 50
        self.folded = 50
        self.asked = 0

    def beat(self, *named: str, epoch: int = 7, read: int = 4, state: str = "busy") -> None:
        beat = {"slot": 3, "epoch": epoch, "dispatch_ids": list(named), "last_work_offset": read, "state": state}
        self.disputes.heard(beat, self.now)

    def compare(self, in_hand: Any = IN_HAND, *, after: float = 0.0) -> dict[tuple[int, int], set[str]]:
        self.now += after
        return self.disputes.compare(
            in_hand,
            now=self.now,
            folded=self.folded,
            work_end=lambda _: self.work_end,
            inbox_end=self._inbox_end,
        )

    def strangers(self, known: Any = (), *, after: float = 0.0) -> set[tuple[int, int]]:
        self.now += after
        return self.disputes.strangers(
            dict.fromkeys(known), now=self.now, folded=self.folded, inbox_end=self._inbox_end
        )

    def _inbox_end(self) -> int:
        self.asked += 1
        return self.inbox_end

    def miss_twice(self) -> None:
        """Two heartbeats a pause apart that do not name the dispatch."""
        self.beat()
        assert self.compare() == {}
        self.now += PAUSE
        self.beat()
        assert self.compare() == {}


def test_a_dispatch_missed_twice_is_lost_once_the_inbox_is_read() -> None:
    yard = Yard()
    yard.miss_twice()
    assert yard.compare(after=1) == {(3, 7): {"job/generate/1"}}
    assert yard.compare(after=1) == {}, "it is named once"


def test_an_end_that_the_fold_has_not_read_yet_may_explain_it() -> None:
    yard = Yard()
    yard.folded = 40
    yard.miss_twice()
    assert yard.compare(after=60) == {}
    yard.folded = 50
    assert yard.compare({3: (7, frozenset())}) == {}, "the fold has read the end: nothing is missing"


def test_a_slot_that_names_its_work_is_left_alone() -> None:
    yard = Yard()
    for _ in range(5):
        yard.beat("job/generate/1")
        assert yard.compare(after=PAUSE) == {}
    assert yard.asked == 0


def test_work_that_is_named_late_is_no_longer_in_dispute() -> None:
    yard = Yard()
    yard.beat()
    yard.compare()
    yard.now += PAUSE
    yard.beat("job/generate/1")
    assert yard.compare() == {}
    yard.miss_twice()
    assert yard.compare(after=1) == {(3, 7): {"job/generate/1"}}


def test_a_slot_that_has_not_read_so_far_gets_time() -> None:
    """It reads on: what it does not name may stand behind what it reads."""
    yard = Yard()
    yard.work_end = 9
    for read in range(1, 8):
        yard.beat(read=read)
        assert yard.compare(after=PAUSE) == {}
    yard.beat(read=8)
    assert yard.compare() == {}
    assert yard.compare(after=1) == {(3, 7): {"job/generate/1"}}


def test_a_slot_that_reads_nothing_at_all_is_stuck() -> None:
    yard = Yard()
    yard.work_end = 9
    yard.beat(read=1)
    yard.compare()
    for _ in range(STUCK_PAUSES):
        assert yard.asked == 0
        yard.now += PAUSE
        yard.beat(read=1)
        assert yard.compare() == {}
    assert yard.compare(after=1) == {(3, 7): {"job/generate/1"}}


def test_other_lives_of_the_slot_say_nothing() -> None:
    yard = Yard()
    for _ in range(4):
        yard.beat(epoch=6)
        assert yard.compare(after=PAUSE) == {}
    assert Yard().compare() == {}, "a slot that was never heard is the monitor's matter"


def test_a_heartbeat_of_before_is_not_a_second_one() -> None:
    yard = Yard()
    yard.beat()
    yard.compare()
    assert yard.compare(after=5 * PAUSE) == {}
    assert yard.compare(after=5 * PAUSE) == {}


def test_a_slot_that_nobody_knows_is_a_stranger() -> None:
    yard = Yard()
    yard.folded = 40
    yard.beat(state="idle")
    assert yard.strangers() == set()
    yard.now += PAUSE
    yard.beat(state="idle")
    assert yard.strangers() == set()
    assert yard.strangers(after=60) == set(), "its joining may stand in what the fold has not read"
    yard.folded = 50
    assert yard.strangers() == {(3, 7)}
    assert yard.strangers(after=60) == set(), "it is named once"


def test_slots_that_are_known_load_or_stop_are_no_strangers() -> None:
    yard = Yard()
    for state, known in (("idle", (3,)), ("loading", ()), ("stopping", ())):
        for _ in range(4):
            yard.beat(state=state)
            assert yard.strangers(known, after=PAUSE) == set()
