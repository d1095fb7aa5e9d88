"""The slots: who they are, what they can run, and which of their places are free.

Slots of one pool that serve the same are one shape; the choice looks at shapes first and at slots only within one.
A free slot is found by (tasks in hand, number), the least first, among those that have a kind's model warm or among
all: O(log n).
"""

import heapq
import sys
from typing import Any, Final

from streams.policy.config import Pool
from streams.policy.fold import Fold
from streams.policy.state import Slot

_SWEEP_FACTOR: Final = 4
_SWEEP_LEAST: Final = 64


class Shape:
    """Slots of one pool that serve the same stages and versions. places: how many more tasks they take together."""

    def __init__(self, slot: Slot, pool: Pool) -> None:
        self.key = _key(slot)
        self.pool_name = slot.pool
        self.pool = pool
        self.serves = frozenset(slot.serves)
        self.versions = frozenset(slot.versions)
        self.places = 0
        self.slots: dict[int, Slot] = {}
        self._free: dict[str, list[tuple[int, int]]] = {}  # warm kind -> heap of (tasks in hand, slot)
        self._offers = 0  # since the last sweep
        self._runs: dict[str, bool] = {}

    def runs(self, kind: str) -> bool:
        """Whether its slots can run a kind."""
        known = self._runs.get(kind)
        if known is None:
            stage, _, version = kind.rpartition("@")
            known = stage in self.serves
            if known and self.versions:
                known = f"{stage.partition('/')[0]}@{version}" in self.versions
            self._runs[kind] = known
        return known

    def offer(self, slot: Slot) -> None:
        """The slot has a free place. Stale entries are swept out before they outnumber the live ones by far."""
        heap = self._free.get(slot.warm)
        if heap is None:
            heap = self._free[slot.warm] = []
        heapq.heappush(heap, (len(slot.jobs), slot.slot))
        self._offers += 1
        if self._offers > _SWEEP_FACTOR * len(self.slots) + _SWEEP_LEAST:
            self._offers = 0
            self._free = {}
            for each in self.slots.values():
                if each.places:
                    self._free.setdefault(each.warm, []).append((len(each.jobs), each.slot))
            for entries in self._free.values():
                heapq.heapify(entries)

    def best(self, kind: str) -> tuple[int, int, int]:
        """(tasks in hand, coldness, number) of the free slot that suits a kind best, the smallest. coldness: 0 with the
        kind's model warm, 1 before the first task, 2 with another model. Raises ValueError when no slot is free."""
        found: tuple[int, int, int] | None = None
        slots = self.slots
        for warm, heap in self._free.items():
            while heap:
                count, number = heap[0]
                slot = slots.get(number)
                if (
                    slot is not None
                    and slot.warm == warm
                    and len(slot.jobs) == count < slot.capacity
                    and not slot.draining
                ):
                    this = (count, 0 if warm == kind else 2 if warm else 1, number)
                    if found is None or this < found:
                        found = this
                    break
                heapq.heappop(heap)  # an entry that has become stale
        if found is None:
            raise ValueError(kind)
        return found


class Slots:
    """All live slots and what is free among them. places: how many more tasks they take."""

    def __init__(self, fold: Fold) -> None:
        self._fold = fold
        self._shapes: dict[tuple[Any, ...], Shape] = {}
        self._shape_of: dict[int, Shape] = {}
        self._pool_places: dict[str, int] = {}
        self._first_lanes: list[str] = []
        self.places = 0
        fold.servable = self.servable
        for slot in fold.state.slots.values():
            self._add(slot)
        self._shapes_changed()

    def add(self, slot: Slot) -> None:
        """A worker is there from now on."""
        known = len(self._shapes)
        self._add(slot)
        if len(self._shapes) > known:
            self._shapes_changed()

    def _add(self, slot: Slot) -> None:
        key = _key(slot)
        shape = self._shapes.get(key)
        if shape is None:
            shape = self._shapes[key] = Shape(slot, self._fold.policy.pool(slot.pool))
        self._shape_of[slot.slot] = shape
        shape.slots[slot.slot] = slot
        self._count(slot, slot.places)

    def drop(self, slot: Slot) -> None:
        """The slot is gone."""
        self._count(slot, -slot.places)
        shape = self._shape_of.pop(slot.slot)
        del shape.slots[slot.slot]
        if not shape.slots:
            del self._shapes[shape.key]
            self._shapes_changed()

    def take(self, slot: Slot, job_id: str, attempt: int, kind: str) -> None:
        """A task goes to a free place of the slot."""
        slot.jobs[job_id] = attempt
        slot.warm = kind
        self._count(slot, -1)

    def release(self, number: int, job_id: str) -> Slot:
        """The task has left the slot."""
        slot = self._fold.state.slots[number]
        del slot.jobs[job_id]
        if not slot.draining:
            self._count(slot, 1)
        return slot

    def drain(self, slot: Slot, draining: bool) -> None:
        """The slot wants no new work, or wants some again."""
        before = slot.places
        slot.draining = draining
        self._count(slot, slot.places - before)

    def follow_policy(self) -> None:
        """The rules of pools may have changed."""
        for shape in self._shapes.values():
            shape.pool = self._fold.policy.pool(shape.pool_name)
        self._shapes_changed()

    def capacity(self) -> int:
        """How many tasks all slots that do not drain take at once."""
        return sum(slot.capacity for slot in self._fold.state.slots.values() if not slot.draining)

    def open_shapes(self) -> list[Shape]:
        """Shapes with a free place."""
        return [shape for shape in self._shapes.values() if shape.places]

    def first_lanes(self) -> list[str]:
        """Lanes that some pool puts before all others, the most urgent first."""
        return self._first_lanes

    def admits(self, shape: Shape, lane: str) -> bool:
        """Whether a free place of the shape may be given to the lane: the pool serves it, and what is kept for the
        pool's first lane stays free."""
        pool = shape.pool
        if lane not in pool.lanes:
            return False
        return lane == pool.first or self._pool_places[shape.pool_name] > pool.reserve

    def best(self, shapes: list[Shape], lane: str, kind: str) -> Slot:
        """The slot for a task: of a pool that is not lent, with the fewest tasks in hand, with the model warm (else
        one that has run nothing yet), of the most specialised shape. Raises ValueError when no place is free."""
        shape = shapes[0] if len(shapes) == 1 else min(shapes, key=lambda shape: _rank(shape, lane, kind))
        return self._fold.state.slots[shape.best(kind)[-1]]

    def servable(self, lane: str, kind: str) -> bool:
        """Whether any live slot, busy or not, can run a kind for a lane."""
        return any(lane in shape.pool.lanes and shape.runs(kind) for shape in self._shapes.values())

    def _shapes_changed(self) -> None:
        """What depends on which shapes there are and on the rules of their pools."""
        first = {shape.pool.first for shape in self._shapes.values()}
        self._first_lanes = [lane for lane in self._fold.policy.lanes if lane in first]
        queue = self._fold.queue
        for lane in queue.lanes:
            for kind in sorted(queue.kinds(lane)):
                if self.servable(lane, kind):
                    queue.unstall(lane, kind)
                else:
                    queue.stall(lane, kind)

    def _count(self, slot: Slot, change: int) -> None:
        """So many places of the slot have become free, or were taken."""
        shape = self._shape_of[slot.slot]
        shape.places += change
        self.places += change
        self._pool_places[slot.pool] = self._pool_places.get(slot.pool, 0) + change
        if slot.places:
            shape.offer(slot)


def _rank(shape: Shape, lane: str, kind: str) -> tuple[int, ...]:
    """How well the shape's best slot suits, the smallest first; the last number is the slot's."""
    count, coldness, number = shape.best(kind)
    lent = shape.pool.first is not None and shape.pool.first != lane
    versions = len(shape.versions) or sys.maxsize  # none named: every version
    return (lent, count, coldness, len(shape.pool.lanes), len(shape.serves), versions, number)


def _key(slot: Slot) -> tuple[Any, ...]:
    return (slot.pool, slot.serves, slot.versions)
