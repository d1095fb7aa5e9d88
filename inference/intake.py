"""What a slot does with the records of its work partition. Pure: no Kafka, no clock.

Work of another epoch is ignored, a dispatch that was seen is ignored, a cancel holds for its dispatch whether it comes
before the work, while it waits, while it runs, or too late.
"""

from collections import OrderedDict, deque
from typing import Final

from inference.work import WorkItem, work_item
from schemas.codec import Record
from schemas.events import dispatch_id

# Ids that are remembered; far more than a slot can have in flight.
REMEMBERED: Final = 10_000


class _Memory:
    """The last few thousand ids."""

    def __init__(self) -> None:
        self._ids: OrderedDict[str, None] = OrderedDict()

    def add(self, name: str) -> None:
        self._ids[name] = None
        if len(self._ids) > REMEMBERED:
            self._ids.popitem(last=False)

    def __contains__(self, name: str) -> bool:
        return name in self._ids


class Intake:
    """The work of one slot, from the partition to the hand that takes it.

    After `take`, an item is in flight until `settle` names it; `commit_offset` is where a reader would go on who may
    skip only what is settled.
    """

    def __init__(self, slot: int, epoch: int, start_offset: int) -> None:
        self._slot = slot
        self._epoch = epoch
        self._waiting: deque[WorkItem] = deque()
        self._seen = _Memory()
        self._canceled = _Memory()
        # Records with unsettled work, oldest first: offset -> dispatch ids.
        self._open: OrderedDict[int, set[str]] = OrderedDict()
        self._offset_of: dict[str, int] = {}
        self._next_offset = start_offset

    @property
    def waiting(self) -> int:
        """How many items nobody has taken."""
        return len(self._waiting)

    @property
    def commit_offset(self) -> int:
        """The offset of the first record with unsettled work, else that of the next record."""
        return next(iter(self._open)) if self._open else self._next_offset

    @property
    def last_offset(self) -> int:
        """The last offset read, -1 before the first."""
        return self._next_offset - 1

    @property
    def dispatch_ids(self) -> tuple[str, ...]:
        """All unsettled work."""
        return tuple(self._offset_of)

    def begin_epoch(self, epoch: int) -> None:
        """A new life of the slot: what was dispatched to the old one will not be settled here."""
        self._epoch = epoch
        self._waiting.clear()
        self._open.clear()
        self._offset_of.clear()

    def skip(self, offset: int) -> None:
        """Takes notice of a record that cannot be read."""
        self._next_offset = offset + 1

    def add(self, offset: int, batch: Record) -> list[str]:
        """Takes in a WorkBatch. Returns the dispatch ids that it cancels; one of them may be running."""
        self._next_offset = offset + 1
        if batch["slot"] != self._slot or batch["epoch"] != self._epoch:
            return []
        fresh: set[str] = set()
        for record in batch["items"]:
            item = work_item(record)
            if item.dispatch_id in self._seen:
                continue
            self._seen.add(item.dispatch_id)
            self._waiting.append(item)
            self._offset_of[item.dispatch_id] = offset
            fresh.add(item.dispatch_id)
        if fresh:
            self._open[offset] = fresh
        canceled = [dispatch_id(c["job_id"], c["stage"], c["attempt"]) for c in batch["controls"]]
        for name in canceled:
            self._canceled.add(name)
        return canceled

    def take(self) -> WorkItem | None:
        """The next item, None when nothing waits."""
        return self._waiting.popleft() if self._waiting else None

    def is_canceled(self, name: str) -> bool:
        """Whether this dispatch shall not run (any more)."""
        return name in self._canceled

    def settle(self, name: str) -> None:
        """The end of a dispatch is written."""
        offset = self._offset_of.pop(name, None)
        if offset is None:
            return
        left = self._open[offset]
        left.discard(name)
        if not left:
            del self._open[offset]
