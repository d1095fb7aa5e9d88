"""Start-time fair queueing on two levels, for several kinds of task and several servers: SFQ(D).

The upper level shares between lanes, the lower one between the users of a lane; within a user the smallest (priority,
sequence) goes first. On each level a flow has a weight and a start tag S = max(v, F): v is the level's virtual time
(the greatest start tag dispatched), F the finish tag of the flow's task before. Dispatching charges F = S + cost /
weight, in GPU-seconds per unit of weight, to the lane and to the user. The least tag goes first. New flows start at
v: idling earns nothing, and nobody starves. Any two users of a lane that stay backlogged differ in cost / weight by
at most (D + 1)(c_f / w_f + c_g / w_g), with D tasks in flight and c the largest cost; so do any two lanes.

Sources: Goyal, Vin, Cheng, "Start-time Fair Queueing", SIGCOMM 1996; Jin, Chase, Kaur, "Interposed Proportional
Sharing for a Storage Service Utility", SIGMETRICS 2004 (SFQ(D)).

Costs are estimates when charged; `settle` moves F by what was measured, so an estimate cannot be gamed.
"""

import heapq
from collections.abc import Container, Iterable, Mapping, Set
from math import inf
from typing import Final

import msgspec

from streams.policy.flows import Clockwork, Flow, Head, Lane, LaneClock, Task, Tasks, Waiting

# Heaps hold entries that have become stale; they are rebuilt when those are more than this many times the live ones.
_SWEEP_FACTOR: Final = 4
_SWEEP_LEAST: Final = 256


# What Head(...) does, in a third of the time: heads are the commonest thing that is made here.
_head: Final = tuple.__new__

__all__ = ["Clockwork", "FairQueue", "Head", "Task"]


class FairQueue:
    """The order over lanes, users and kinds. push, pop and remove cost O(log n) in the number of users and tasks.

    lanes: weights in the order of urgency, which breaks ties. Derived from `clockwork`, the tasks that wait and the
    users that are parked: after a restart it is built anew with the same result.
    """

    def __init__(
        self,
        clockwork: Clockwork,
        lanes: Mapping[str, float],
        waiting: Iterable[Task] = (),
        parked: Iterable[str] = (),
    ) -> None:
        self.clockwork = clockwork
        self.lanes = tuple(lanes)
        self._lanes = {
            name: Lane(name, clockwork.lanes.setdefault(name, LaneClock()), weight) for name, weight in lanes.items()
        }
        self._ranked = tuple(enumerate(self._lanes.values()))
        self._parked = set(parked)
        self._tasks: dict[str, Task] = {}
        for task in waiting:
            self._insert(task)

    def __len__(self) -> int:
        return len(self._tasks)

    # ---- what it says -------------------------------------------------------------------------------------------

    def task(self, job_id: str) -> Task | None:
        """The waiting task of a job."""
        return self._tasks.get(job_id)

    def lanes_by_tag(self) -> list[str]:
        """Lanes with tasks that wait, in the order in which they should be served."""
        waiting = [(lane.clock.tag, place, lane.name) for place, lane in self._ranked if lane.count]
        if len(waiting) > 1:
            waiting.sort()  # equal tags in the order of urgency
        return [name for _, _, name in waiting]

    def lane_tag(self, lane: str) -> float:
        """Start tag of the lane's next task in the upper level."""
        return self._lanes[lane].clock.tag

    def lane_virtual_time(self, lane: str) -> float:
        """Greatest start tag of a user dispatched in the lane."""
        return self._lanes[lane].clock.virtual_time

    def kinds(self, lane: str) -> Mapping[str, int]:
        """Kinds with tasks that wait in a lane (those of parked users too), and how many."""
        return self._lanes[lane].kinds

    def weight(self, user_id: str) -> float:
        """A user's weight."""
        return self.clockwork.weights.get(user_id, 1.0)

    def tag(self, lane: str, user_id: str) -> float:
        """Start tag of the user's next task in the lane."""
        clock = self._lanes[lane].clock
        flow = clock.flows.get(user_id)
        return clock.virtual_time if flow is None else flow.tag

    def waiting_of(self, user_id: str) -> int:
        """How many of the user's tasks wait, over all lanes."""
        return sum(lane.users[user_id].count for lane in self._lanes.values() if user_id in lane.users)

    def waiting_in(self, lane: str, user_id: str | None = None) -> int:
        """How many tasks wait in a lane; those of one user, if one is given."""
        if user_id is None:
            return self._lanes[lane].count
        waiting = self._lanes[lane].users.get(user_id)
        return 0 if waiting is None else waiting.count

    def users_in(self, lane: str) -> int:
        """How many users have tasks that wait in a lane."""
        return len(self._lanes[lane].users)

    def users_waiting(self, lane: str) -> Iterable[tuple[str, int]]:
        """Users with tasks that wait in a lane and how many, in no order."""
        return ((user_id, waiting.count) for user_id, waiting in self._lanes[lane].users.items())

    @property
    def parked(self) -> Set[str]:
        """Users of whom nothing is offered at present."""
        return self._parked

    def is_parked(self, user_id: str) -> bool:
        """Whether nothing of the user is offered at present."""
        return user_id in self._parked

    def peek(self, lane: str, kind: str, worst: float = inf) -> Head | None:
        """The next task of a kind in a lane, None if none waits. worst: a task with a greater start tag need not be
        found: what a heap holds on top is never greater than the tag of any task that waits."""
        found = self._lanes[lane]
        heap = found.offers.get(kind)
        while heap:
            tag, order, user_id = heap[0]
            if tag > worst:
                return None
            waiting = found.users.get(user_id)
            tasks = None if waiting is None else waiting.heaps.get(kind)
            if tasks is not None and tasks.offered == tag:
                flow = found.clock.flows[user_id]
                if flow.order == order:  # else of a flow that was forgotten
                    if tasks.dead:
                        self._drop_dead(tasks)
                    if tasks and user_id not in self._parked:
                        if flow.tag == tag:
                            task = tasks[0]
                            return _head(Head, (tag, order, task.priority, task.sequence, user_id, task.job_id))
                        tasks.offered = flow.tag
                        heapq.heapreplace(heap, (flow.tag, order, user_id))
                        continue
                    tasks.offered = None
            heapq.heappop(heap)
        return None

    # ---- what changes it ----------------------------------------------------------------------------------------

    def push(self, task: Task) -> None:
        """A task begins to wait. A user (and a lane) that had nothing waiting starts at the current virtual time."""
        lane = self._lanes[task.lane]
        clock = lane.clock
        if lane.active == 0 or (clock.stalled and clock.stalled.keys() >= lane.kinds.keys()):
            clock.tag = max(clock.tag, self.clockwork.virtual_time)
        flow = self._flow(lane, task.user_id)
        waiting = lane.users.get(task.user_id)
        if waiting is None or (clock.stalled and waiting.only(clock.stalled)):
            flow.tag = max(flow.tag, clock.virtual_time)
        self._insert(task)

    def stall(self, lane: str, kind: str) -> None:
        """Nobody can serve a kind that waits in a lane: who waits for nothing else gains nothing by it."""
        clock = self._lanes[lane].clock
        clock.stalled.setdefault(kind, (clock.virtual_time, self.clockwork.virtual_time))

    def unstall(self, lane: str, kind: str) -> None:
        """Somebody can serve the kind again. Tags of those who waited for nothing else have moved with the virtual
        time. O(n) in the users of the lane."""
        found = self._lanes[lane]
        clock = found.clock
        if kind not in clock.stalled:
            return
        if clock.stalled.keys() >= found.kinds.keys():
            moved = self.clockwork.virtual_time - clock.stalled[kind][1]
            clock.tag = max(clock.tag, min(clock.tag + moved, self.clockwork.virtual_time))
        moved = clock.virtual_time - clock.stalled[kind][0]
        if moved > 0:
            for user_id, waiting in found.users.items():
                if waiting.heaps.get(kind) and waiting.only(clock.stalled):
                    flow = clock.flows[user_id]
                    flow.tag = max(flow.tag, min(flow.tag + moved, clock.virtual_time))
        del clock.stalled[kind]

    def remove(self, job_id: str) -> bool:
        """A waiting task is withdrawn; False when none of that job waits."""
        task = self._tasks.pop(job_id, None)
        if task is None:
            return False
        self._lanes[task.lane].users[task.user_id].heaps[task.kind].dead += 1
        self._remove(task)
        return True

    def reprioritise(self, job_id: str, priority: int) -> bool:
        """Moves a waiting task among those of its user; False when none of that job waits."""
        task = self._tasks.get(job_id)
        if task is None:
            return False
        if task.priority != priority:
            self._tasks[job_id] = moved = msgspec.structs.replace(task, priority=priority)
            tasks = self._lanes[task.lane].users[task.user_id].heaps[task.kind]
            tasks.dead += 1
            heapq.heappush(tasks, moved)
        return True

    def pop(self, lane: str, kind: str, cost_gpu_seconds: float, user_id: str | None = None) -> tuple[Task, float]:
        """The next task of a kind in a lane, and what its user was charged (cost / weight).

        user_id: takes that user's next task instead of the fairest one's. Raises IndexError if none waits.
        """
        found = self._lanes[lane]
        if user_id is None:
            head = self.peek(lane, kind)
            if head is None:
                raise IndexError(kind)
            user_id = head.user_id
        tasks = found.users[user_id].heaps[kind]
        if tasks.dead:
            self._drop_dead(tasks)
        task = heapq.heappop(tasks)
        del self._tasks[task.job_id]
        charged = self._charge(found, user_id, cost_gpu_seconds)
        self._remove(task)
        return task, charged

    def settle(self, lane: str, user_id: str, *, charged: float, estimate: float, measured_gpu_seconds: float) -> None:
        """Replaces what was charged (and the estimate behind it) by what was measured; 0 refunds it."""
        found = self._lanes[lane]
        found.clock.tag += (measured_gpu_seconds - estimate) / found.weight
        self.clockwork.greatest_finish = max(self.clockwork.greatest_finish, found.clock.tag)
        flow = self._flow(found, user_id)
        flow.tag += measured_gpu_seconds / self.weight(user_id) - charged
        found.clock.greatest_finish = max(found.clock.greatest_finish, flow.tag)
        waiting = found.users.get(user_id)
        if waiting is not None:
            for kind, tasks in waiting.heaps.items():
                if tasks.offered is not None and flow.tag < tasks.offered:
                    self._offer(found, user_id, kind, tasks)

    def reweigh(self, user_id: str, weight: float) -> None:
        """A user's new weight; it acts on what waits already, since only the next task carries a tag."""
        self.clockwork.weights[user_id] = weight
        if weight == 1.0:
            del self.clockwork.weights[user_id]

    def reweigh_lanes(self, lanes: Mapping[str, float]) -> None:
        """New weights of lanes."""
        for name, weight in lanes.items():
            self._lanes[name].weight = weight

    def park(self, user_id: str) -> None:
        """Nothing of the user is offered until `unpark`."""
        if user_id in self._parked:
            return
        self._parked.add(user_id)
        for lane in self._lanes.values():
            lane.active -= user_id in lane.users

    def unpark(self, user_id: str) -> None:
        """The user is back, at the current virtual time at the earliest: a cap is a choice, not a credit."""
        if user_id not in self._parked:
            return
        self._parked.discard(user_id)
        for lane in self._lanes.values():
            if user_id not in lane.users:
                continue
            if lane.active == 0:
                lane.clock.tag = max(lane.clock.tag, self.clockwork.virtual_time)
            lane.active += 1
            flow = self._flow(lane, user_id)
            flow.tag = max(flow.tag, lane.clock.virtual_time)
            for kind, tasks in lane.users[user_id].heaps.items():
                if tasks and tasks.offered is None:
                    self._offer(lane, user_id, kind, tasks)

    def idle(self) -> None:
        """Nothing waits and nothing runs: virtual times move on to the greatest finish tags, so that what was served
        in the past gives nobody a credit or a debt, and flows are forgotten."""
        clockwork = self.clockwork
        clockwork.virtual_time = max(clockwork.virtual_time, clockwork.greatest_finish)
        for lane in self._lanes.values():
            clock = lane.clock
            clock.virtual_time = max(clock.virtual_time, clock.greatest_finish)
            clock.flows.clear()
            lane.offers.clear()

    def forget(self, keep: Container[str]) -> None:
        """Drops flows that would begin at the virtual time anyway. keep: users with tasks that run."""
        for lane in self._lanes.values():
            clock = lane.clock
            past = [
                user_id
                for user_id, flow in clock.flows.items()
                if flow.tag <= clock.virtual_time and user_id not in lane.users and user_id not in keep
            ]
            for user_id in past:
                del clock.flows[user_id]

    # ---- inside -------------------------------------------------------------------------------------------------

    def _flow(self, lane: Lane, user_id: str) -> Flow:
        flow = lane.clock.flows.get(user_id)
        if flow is None:
            self.clockwork.flows_seen += 1
            flow = Flow(order=self.clockwork.flows_seen, tag=lane.clock.virtual_time)
            lane.clock.flows[user_id] = flow
        return flow

    def _charge(self, lane: Lane, user_id: str, cost_gpu_seconds: float) -> float:
        # Comparisons instead of max(): this is the hottest place of all.
        clockwork, clock = self.clockwork, lane.clock
        tag = clock.tag
        if tag > clockwork.virtual_time:
            clockwork.virtual_time = tag
        clock.tag = tag = tag + cost_gpu_seconds / lane.weight
        if tag > clockwork.greatest_finish:
            clockwork.greatest_finish = tag
        flow = self._flow(lane, user_id)
        tag = flow.tag
        if tag > clock.virtual_time:
            clock.virtual_time = tag
        charged = cost_gpu_seconds / clockwork.weights.get(user_id, 1.0)
        flow.tag = tag = tag + charged
        if tag > clock.greatest_finish:
            clock.greatest_finish = tag
        return charged

    def _insert(self, task: Task) -> None:
        self._tasks[task.job_id] = task
        lane = self._lanes[task.lane]
        waiting = lane.users.get(task.user_id)
        if waiting is None:
            waiting = lane.users[task.user_id] = Waiting()
            lane.active += task.user_id not in self._parked
        tasks = waiting.heaps.get(task.kind)
        if tasks is None:
            tasks = waiting.heaps[task.kind] = Tasks()
        heapq.heappush(tasks, task)
        if tasks.offered is None and task.user_id not in self._parked:
            self._offer(lane, task.user_id, task.kind, tasks)
        waiting.count += 1
        lane.count += 1
        lane.kinds[task.kind] = lane.kinds.get(task.kind, 0) + 1

    def _remove(self, task: Task) -> None:
        """A task waits no more. Whatever of it is left in heaps is dropped when it comes up."""
        lane = self._lanes[task.lane]
        lane.count -= 1
        if lane.kinds[task.kind] == 1:
            del lane.kinds[task.kind]
            lane.clock.stalled.pop(task.kind, None)
        else:
            lane.kinds[task.kind] -= 1
        waiting = lane.users[task.user_id]
        waiting.count -= 1
        if waiting.count == 0:
            del lane.users[task.user_id]
            lane.active -= task.user_id not in self._parked

    def _offer(self, lane: Lane, user_id: str, kind: str, tasks: Tasks) -> None:
        flow = self._flow(lane, user_id)
        tasks.offered = flow.tag
        heap = lane.offers.get(kind)
        if heap is None:
            heap = lane.offers[kind] = []
        heapq.heappush(heap, (flow.tag, flow.order, user_id))
        if len(heap) > _SWEEP_FACTOR * len(lane.users) + _SWEEP_LEAST:
            self._sweep(lane, kind, heap)

    def _sweep(self, lane: Lane, kind: str, heap: list[tuple[float, int, str]]) -> None:
        live = set()
        for entry in heap:
            waiting = lane.users.get(entry[2])
            if waiting is not None and kind in waiting.heaps and waiting.heaps[kind].offered == entry[0]:
                live.add(entry)
        heap[:] = live
        heapq.heapify(heap)

    def _drop_dead(self, tasks: Tasks) -> None:
        while tasks and self._tasks.get(tasks[0].job_id) is not tasks[0]:
            heapq.heappop(tasks)
            tasks.dead -= 1
