"""The slots: who they are, what they can run, and which of their places are free.

Slots of one pool that serve the same are one shape; the choice looks at shapes first and at slots only within one.
A free slot is found by (tasks in hand, number), the least first, among those that have a kind's model warm or among
all: O(log n).
"""

import heapq
from collections.abc import Iterator, Mapping
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
        self.slots = 0
        self._free: dict[str, list[tuple[int, int]]] = {}  # warm kind -> heap of (tasks in hand, slot)
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

    def lends(self, lane: str) -> bool:
        """Whether it would take the lane's task only because its own lane leaves it idle."""
        return self.pool.first is not None and self.pool.first != lane

    def offer(self, slot: Slot) -> None:
        """The slot has a free place."""
        heap = self._free.get(slot.warm)
        if heap is None:
            heap = self._free[slot.warm] = []
        heapq.heappush(heap, (len(slot.jobs), slot.slot))

    def warm_kinds(self) -> list[str]:
        """Kinds that free slots may have warm; the empty one stands for slots that have run nothing yet."""
        return list(self._free)

    def least(self, slots: Mapping[int, Slot], warm: str) -> tuple[int, int] | None:
        """(tasks in hand, number) of the free slot with the fewest tasks that has a kind warm; entries that have become
        stale are dropped when they come up."""
        heap = self._free.get(warm)
        while heap:
            count, number = heap[0]
            slot = slots.get(number)
            if (
                slot is not None
                and slot.warm == warm
                and len(slot.jobs) == count
                and slot.places
                and _key(slot) == self.key
            ):
                return heap[0]
            heapq.heappop(heap)
        if heap is not None:
            del self._free[warm]
        return None

    def sweep(self, slots: Mapping[int, Slot]) -> None:
        """Builds the heaps anew when stale entries outnumber the live ones by far."""
        if sum(map(len, self._free.values())) <= _SWEEP_FACTOR * self.slots + _SWEEP_LEAST:
            return
        for warm, heap in list(self._free.items()):
            live = {
                (count, number)
                for count, number in heap
                if number in slots and slots[number].warm == warm and len(slots[number].jobs) == count
            }
            if live:
                heap[:] = sorted(live)
            else:
                del self._free[warm]


class Slots:
    """All live slots and what is free among them."""

    def __init__(self, fold: Fold) -> None:
        self._fold = fold
        self._live = fold.state.slots
        self._shapes: dict[tuple[Any, ...], Shape] = {}
        self._pool_places: dict[str, int] = {}
        self.places = 0
        for slot in self._live.values():
            self.add(slot)

    def add(self, slot: Slot) -> None:
        """A slot is there, from now on or after a restart."""
        key = _key(slot)
        shape = self._shapes.get(key)
        if shape is None:
            shape = self._shapes[key] = Shape(slot, self._fold.policy.pool(slot.pool))
        shape.slots += 1
        self._count(slot, +1)

    def drop(self, slot: Slot) -> None:
        """The slot is gone."""
        self._count(slot, -1)
        shape = self._shapes[_key(slot)]
        shape.slots -= 1
        if not shape.slots:
            del self._shapes[_key(slot)]

    def take(self, number: int, job_id: str, attempt: int, kind: str) -> Slot:
        """A task goes to the slot."""
        slot = self._live[number]
        self._count(slot, -1)
        slot.jobs[job_id] = attempt
        slot.warm = kind
        self._count(slot, +1)
        return slot

    def release(self, number: int, job_id: str) -> Slot:
        """The task has left the slot."""
        slot = self._live[number]
        self._count(slot, -1)
        del slot.jobs[job_id]
        self._count(slot, +1)
        return slot

    def drain(self, slot: Slot, draining: bool) -> None:
        """The slot wants no new work, or wants some again."""
        if slot.draining != draining:
            self._count(slot, -1)
            slot.draining = draining
            self._count(slot, +1)

    def follow_policy(self) -> None:
        """The rules of pools may have changed."""
        for shape in self._shapes.values():
            shape.pool = self._fold.policy.pool(shape.pool_name)

    def capacity(self) -> int:
        """How many tasks all slots that do not drain take at once."""
        return sum(slot.capacity for slot in self._live.values() if not slot.draining)

    def open_shapes(self) -> list[Shape]:
        """Shapes with a free place."""
        return [shape for shape in self._shapes.values() if shape.places]

    def admits(self, shape: Shape, lane: str) -> bool:
        """Whether a free place of the shape may be given to the lane: the pool serves it, and what is kept for the
        pool's first lane stays free."""
        pool = shape.pool
        if lane not in pool.lanes:
            return False
        return lane == pool.first or self._pool_places[shape.pool_name] > pool.reserve

    def best(self, shapes: list[Shape], lane: str, kind: str) -> int:
        """The slot for a task: of a pool that is not lent, with the model warm, of the most specialised shape, with
        the fewest tasks in hand. Raises ValueError when no shape has a free place."""
        return min(self._candidates(shapes, lane, kind))[-1]

    def _candidates(self, shapes: list[Shape], lane: str, kind: str) -> Iterator[tuple[int, ...]]:
        for shape in shapes:
            special = (len(shape.pool.lanes), len(shape.serves), len(shape.versions) or 1 << 30)
            least = shape.least(self._live, kind)
            coldness = 0
            if least is None:
                least, coldness = shape.least(self._live, ""), 1
            if least is None:
                others = [shape.least(self._live, warm) for warm in shape.warm_kinds()]
                least, coldness = min(other for other in others if other is not None), 2
            yield (shape.lends(lane), coldness, *special, *least)

    def _count(self, slot: Slot, sign: int) -> None:
        """Adds the slot's free places to the totals, or takes them away before the slot changes."""
        places = slot.places
        if not places:
            return
        shape = self._shapes[_key(slot)]
        shape.places += sign * places
        self.places += sign * places
        self._pool_places[slot.pool] = self._pool_places.get(slot.pool, 0) + sign * places
        if sign > 0:
            shape.offer(slot)
            shape.sweep(self._live)


def _key(slot: Slot) -> tuple[Any, ...]:
    return (slot.pool, slot.serves, slot.versions)
