"""Which slots do not have what the scheduler believes them to have. Pure: reports and times are arguments."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

# A slot that reads nothing at all is given up after so many pauses; one that has read past its work after one.
STUCK_PAUSES: Final = 3


# A stranger that still wants work so long after it was fenced is fenced again.
FENCED_PAUSES: Final = 6
# States in which a slot has joined and wants work.
_WORKING: Final = frozenset({"idle", "busy"})


@dataclass(frozen=True, kw_only=True)
class _Report:
    epoch: int
    working: bool
    named: frozenset[str]
    last_work_offset: int
    at: float


@dataclass(kw_only=True)
class _Dispute:
    """since: when the dispatch was first missed; work_end: where the slot's work partition ended then; read: what the
    slot had read then; inbox_end: where the inbox ended when it was missed again, None before."""

    since: float
    work_end: int
    read: int
    inbox_end: int | None = None


class Disputes:
    """Keeps what was missed from one comparison to the next. One thread reports, another compares."""

    def __init__(self, pause_seconds: float) -> None:
        self._pause = pause_seconds
        self._reports: dict[int, _Report] = {}
        self._open: dict[tuple[int, int, str], _Dispute] = {}
        self._strangers: dict[tuple[int, int], _Dispute] = {}

    def heard(self, beat: Mapping[str, Any], now: float) -> None:
        """A slot's heartbeat."""
        self._reports[beat["slot"]] = _Report(
            epoch=beat["epoch"],
            working=beat["state"] in _WORKING,
            named=frozenset(beat["dispatch_ids"]),
            last_work_offset=beat["last_work_offset"],
            at=now,
        )

    def compare(
        self,
        in_hand: Mapping[int, tuple[int, frozenset[str]]],
        *,
        now: float,
        folded: int,
        work_end: Callable[[int], int],
        inbox_end: Callable[[], int],
    ) -> dict[tuple[int, int], set[str]]:
        """(slot, epoch) -> dispatches that are lost there; each is named once.

        in_hand: what the fold believes, slot -> epoch and dispatches; folded: up to where it has read the inbox;
        work_end, inbox_end: where those partitions end now, asked only when something is missed. A slot may have
        written a task's end that the fold has not read: therefore a dispute is decided only when the fold has read
        all that the inbox held when the dispatch was missed for the second time.
        """
        lost: dict[tuple[int, int], set[str]] = {}
        still: dict[tuple[int, int, str], _Dispute] = {}
        for slot, (epoch, dispatches) in in_hand.items():
            report = self._reports.get(slot)
            if report is None or report.epoch != epoch:
                continue
            missing = dispatches - report.named
            end = work_end(slot) if any((slot, epoch, name) not in self._open for name in missing) else 0
            for name in missing:
                key = (slot, epoch, name)
                dispute = self._open.get(key)
                if dispute is None:
                    dispute = _Dispute(since=now, work_end=end, read=report.last_work_offset)
                elif dispute.inbox_end is not None and folded >= dispute.inbox_end:
                    lost.setdefault((slot, epoch), set()).add(name)
                    continue
                elif dispute.inbox_end is None and self._is_missed_again(dispute, report):
                    dispute.inbox_end = inbox_end()
                still[key] = dispute
        self._open = still
        return lost

    def strangers(
        self, known: Mapping[int, object], *, now: float, folded: int, inbox_end: Callable[[], int]
    ) -> set[tuple[int, int]]:
        """(slot, epoch) of slots that want work and that the fold does not have; each is named once in a long while.

        They joined, and the fold has no trace of it: it began anew, or their joining was cut from the inbox. Decided as
        in `compare`: two heartbeats some time apart, then all of the inbox read.
        """
        found: set[tuple[int, int]] = set()
        still: dict[tuple[int, int], _Dispute] = {}
        for slot, report in list(self._reports.items()):
            key = (slot, report.epoch)
            if slot in known or not report.working:
                continue
            dispute = self._strangers.get(key) or _Dispute(since=now, work_end=0, read=0)
            if dispute.inbox_end is not None and folded >= dispute.inbox_end:
                found.add(key)
                # Its worker may take a while to notice.
                dispute = _Dispute(since=now + FENCED_PAUSES * self._pause, work_end=0, read=0)
            elif dispute.inbox_end is None and report.at - dispute.since >= self._pause:
                dispute.inbox_end = inbox_end()
            still[key] = dispute
        self._strangers = still
        return found

    def _is_missed_again(self, dispute: _Dispute, report: _Report) -> bool:
        """Whether the slot said later that it does not have it, though it should."""
        waited = report.at - dispute.since
        if report.last_work_offset + 1 >= dispute.work_end:
            return waited >= self._pause
        return report.last_work_offset == dispute.read and waited >= STUCK_PAUSES * self._pause
