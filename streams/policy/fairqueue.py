"""Start-time fair queueing over users, for several kinds of task and several servers: SFQ(D).

Each user is a flow with a weight. A task's start tag is S = max(v, F), where v is the virtual time (the greatest start
tag dispatched) and F the finish tag of the user's task before it; dispatching charges F = S + cost / weight, in
GPU-seconds per unit of weight. The task with the least start tag goes first. New flows start at v: idling earns
nothing, and nobody starves. Any two users that stay backlogged differ in cost / weight by at most
(D + 1)(c_f / w_f + c_g / w_g), with D tasks in flight and c the largest cost.

Sources: Goyal, Vin, Cheng, "Start-time Fair Queueing", SIGCOMM 1996; Jin, Chase, Kaur, "Interposed Proportional
Sharing for a Storage Service Utility", SIGMETRICS 2004 (SFQ(D)).

Costs are estimates when charged; `settle` moves F by what was measured, so an estimate cannot be gamed.
"""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec


class Flow(msgspec.Struct, kw_only=True):
    """One user's place in the order. order: when the user was first seen, breaks ties; tag: start tag of the next
    task; weight: share under contention."""

    user_id: str
    order: int
    weight: float = 1.0
    tag: float = 0.0


class Clockwork(msgspec.Struct, kw_only=True):
    """The queue's own numbers. virtual_time and greatest_finish: GPU-seconds per unit of weight."""

    virtual_time: float = 0.0
    greatest_finish: float = 0.0
    flows: dict[str, Flow] = {}


@dataclass(frozen=True, kw_only=True)
class Task:
    """What waits. kind: what a server must support; sequence: order within the user, the smallest first."""

    job_id: str
    user_id: str
    kind: str
    sequence: int


@dataclass
class _Waiting:
    """One user's tasks of one kind: a heap by sequence. `dead` tasks are dropped when they come up."""

    heap: list[tuple[int, str]] = field(default_factory=list)


class FairQueue:
    """The order over all users and kinds. push, pop and remove cost O(log n) in the number of users and tasks.

    Derived from `clockwork` and the tasks that wait: after a restart it is built anew with the same result.
    """

    def __init__(self, clockwork: Clockwork, waiting: Iterable[Task] = ()) -> None:
        self.clockwork = clockwork
        self._heaps: dict[str, list[tuple[float, int, int, str]]] = {}
        self._waiting: dict[tuple[str, str], _Waiting] = {}
        self._kinds_of: dict[str, dict[str, int]] = {}  # user -> kind -> tasks waiting
        self._versions: dict[str, int] = {}
        self._tasks: dict[str, Task] = {}
        for task in sorted(waiting, key=lambda t: t.sequence):
            self._insert(task)

    def __len__(self) -> int:
        return len(self._tasks)

    def flow(self, user_id: str) -> Flow:
        """The user's flow, made at the first call."""
        flows = self.clockwork.flows
        if user_id not in flows:
            flows[user_id] = Flow(user_id=user_id, order=len(flows))
        return flows[user_id]

    def waiting_of(self, user_id: str) -> int:
        """How many of the user's tasks wait."""
        return sum(self._kinds_of.get(user_id, {}).values())

    def users_waiting(self) -> list[tuple[str, int]]:
        """Users with tasks that wait and how many, the most first."""
        counts = [(user_id, sum(kinds.values())) for user_id, kinds in self._kinds_of.items()]
        return sorted(counts, key=lambda item: (-item[1], item[0]))

    def push(self, task: Task) -> None:
        """A task begins to wait. A user who had nothing waiting starts at the current virtual time."""
        flow = self.flow(task.user_id)
        if task.user_id not in self._kinds_of:
            flow.tag = max(flow.tag, self.clockwork.virtual_time)
            self._versions[task.user_id] = self._versions.get(task.user_id, 0) + 1
        self._insert(task)

    def remove(self, job_id: str) -> bool:
        """A waiting task is withdrawn; False when none of that job waits."""
        task = self._tasks.pop(job_id, None)
        if task is None:
            return False
        self._count(task, -1)
        return True

    def waiting_by_kind(self) -> dict[str, int]:
        """How many tasks of each kind wait."""
        counts: dict[str, int] = {}
        for kinds in self._kinds_of.values():
            for kind, count in kinds.items():
                counts[kind] = counts.get(kind, 0) + count
        return counts

    def peek(self, kind: str) -> tuple[float, int, int] | None:
        """(start tag, flow order, sequence) of the next task of a kind, None if none waits: over all kinds the least
        goes first."""
        heap = self._heaps.get(kind)
        while heap:
            tag, order, version, user_id = heap[0]
            waiting = self._waiting.get((kind, user_id))
            if waiting is not None:
                self._drop_dead(waiting, kind)
            if waiting is None or not waiting.heap or version != self._versions[user_id]:
                heapq.heappop(heap)
                continue
            return tag, order, waiting.heap[0][0]
        return None

    def pop(self, kind: str, cost_gpu_seconds: float) -> tuple[Task, float]:
        """The next task of a kind, and what its user was charged (cost / weight). Raises IndexError if none waits."""
        if self.peek(kind) is None:
            raise IndexError(kind)
        user_id = self._heaps[kind][0][3]
        _, job_id = heapq.heappop(self._waiting[kind, user_id].heap)
        task = self._tasks.pop(job_id)
        flow = self.flow(user_id)
        clockwork = self.clockwork
        clockwork.virtual_time = max(clockwork.virtual_time, flow.tag)
        charged = cost_gpu_seconds / flow.weight
        flow.tag += charged
        clockwork.greatest_finish = max(clockwork.greatest_finish, flow.tag)
        self._count(task, -1)
        self._moved(user_id)
        return task, charged

    def settle(self, user_id: str, charged: float, measured_gpu_seconds: float) -> None:
        """Replaces what was charged by what was measured; 0 refunds it."""
        flow = self.flow(user_id)
        flow.tag += measured_gpu_seconds / flow.weight - charged
        self.clockwork.greatest_finish = max(self.clockwork.greatest_finish, flow.tag)
        self._moved(user_id)

    def reweigh(self, user_id: str, weight: float) -> None:
        """A new weight; it acts on what waits already, since only the next task carries a tag."""
        self.flow(user_id).weight = weight

    def idle(self) -> None:
        """Nothing waits and nothing runs: virtual time moves on to the greatest finish tag, so that what was served
        in the past gives nobody a credit or a debt."""
        self.clockwork.virtual_time = max(self.clockwork.virtual_time, self.clockwork.greatest_finish)

    def _insert(self, task: Task) -> None:
        self._tasks[task.job_id] = task
        heapq.heappush(
            self._waiting.setdefault((task.kind, task.user_id), _Waiting()).heap, (task.sequence, task.job_id)
        )
        self._count(task, +1)
        if self._kinds_of[task.user_id][task.kind] == 1:
            self._offer(task.user_id, task.kind)

    def _count(self, task: Task, change: int) -> None:
        kinds = self._kinds_of.setdefault(task.user_id, {})
        kinds[task.kind] = kinds.get(task.kind, 0) + change
        if kinds[task.kind] == 0:
            del kinds[task.kind]
            self._waiting.pop((task.kind, task.user_id), None)
        if not kinds:
            del self._kinds_of[task.user_id]

    def _moved(self, user_id: str) -> None:
        """The user's tag changed: entries of the old version are dropped when they come up."""
        self._versions[user_id] = self._versions.get(user_id, 0) + 1
        for kind in self._kinds_of.get(user_id, {}):
            self._offer(user_id, kind)

    def _offer(self, user_id: str, kind: str) -> None:
        flow = self.flow(user_id)
        version = self._versions.setdefault(user_id, 0)
        heapq.heappush(self._heaps.setdefault(kind, []), (flow.tag, flow.order, version, user_id))

    def _drop_dead(self, waiting: _Waiting, kind: str) -> None:
        while waiting.heap:
            sequence, job_id = waiting.heap[0]
            task = self._tasks.get(job_id)
            if task is not None and task.kind == kind and task.sequence == sequence:
                return
            heapq.heappop(waiting.heap)
