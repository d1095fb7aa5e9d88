"""The fold shares as SFQ(D) promises: between users of a lane and between lanes that stay backlogged, for any weights,
costs that nobody foresaw, failures and numbers of slots; and nobody starves."""

import heapq
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from streams.policy.config import LANES, Policy, Tier
from streams.policy.decisions import Decision, Dispatch
from streams.policy.scheduler import Scheduler
from streams.policy.state import SchedulerState
from tests.support.world import World, tenant

TIERS = {"free": Tier(max_running=1_000)}


class Flow(NamedTuple):
    """A user, or a lane with one user. costs: of its tasks, in turn, GPU-seconds; failing: each so many tasks one
    fails and is tried again, 0 for none."""

    weight: float
    costs: list[float]
    failing: int


flows_of = st.builds(
    Flow, st.floats(0.5, 10.0), st.lists(st.floats(0.1, 20.0), min_size=1, max_size=4), st.sampled_from([0, 0, 3])
)


class Yard:
    """D slots that always have work of every flow waiting; what each flow got is counted when its tasks end."""

    def __init__(self, flows: list[Flow], depth: int, affinity_gpu_seconds: float, by_lane: bool) -> None:
        self.flows = flows
        self.by_lane = by_lane
        self.names = list(LANES)[: len(flows)] if by_lane else [f"u{number}" for number in range(len(flows))]
        lanes = {
            **dict.fromkeys(LANES, 1.0),
            **{n: f.weight for n, f in zip(self.names, flows, strict=True) if by_lane},
        }
        policy = Policy(tiers=TIERS, lanes=lanes, affinity_gpu_seconds=affinity_gpu_seconds)
        self.world = World(scheduler=Scheduler(state=SchedulerState(policy=policy)))
        self.served = [0.0] * len(flows)
        self.count = [0] * len(flows)
        self.jobs = 0
        self.ends: list[tuple[float, int, int, float]] = []  # time, tie, slot, cost
        for number, flow in enumerate(flows):
            if not by_lane:
                self.world.append(tenant(self.names[number], weight=flow.weight))
            for _ in range(depth + 3):
                self.submit(number)
        for slot in range(depth):
            self.see(self.world.join(slot), 0.0)

    def submit(self, number: int) -> None:
        self.jobs += 1
        name = self.names[number]
        self.world.submit((f"job-{self.jobs}", name), lane=name if self.by_lane else "standard")

    def see(self, decisions: list[Decision], now: float) -> None:
        """Slots begin; whoever got a place asks for another."""
        for decision in decisions:
            if isinstance(decision, Dispatch):
                number = self.names.index(decision.item["user_id"])
                costs = self.flows[number].costs
                cost = costs[self.count[number] % len(costs)]
                self.count[number] += 1
                heapq.heappush(self.ends, (now + cost, self.jobs, decision.slot, cost))
                self.submit(number)

    def step(self) -> None:
        now, _, slot, cost = heapq.heappop(self.ends)
        self.world.now = max(self.world.now, int(1000 * now))
        number = self.names.index(self.world.item(slot)["user_id"])
        self.served[number] += cost
        failing = self.flows[number].failing
        if failing and self.count[number] % failing == 0:
            decisions = self.world.settle(slot, "failed", cost, "transient")
        else:
            decisions = self.world.settle(slot, "succeeded", cost)
        self.see(decisions, now)


@settings(max_examples=60, deadline=None)
@given(
    flows=st.lists(flows_of, min_size=2, max_size=5),
    depth=st.integers(1, 6),
    affinity=st.sampled_from([0.0, 1.0, 5.0]),
    by_lane=st.booleans(),
)
def test_lag_is_within_the_sfq_d_bound(flows: list[Flow], depth: int, affinity: float, by_lane: bool) -> None:
    flows = flows[: len(LANES)] if by_lane else flows
    yard = Yard(flows, depth, affinity, by_lane)
    marks: list[list[float]] = []
    for _ in range(120):
        yard.step()
        marks.append(list(yard.served))
    most = [max(flow.costs) / flow.weight for flow in flows]
    slack = 0.0 if by_lane else affinity
    for begin in range(0, len(marks), 24):
        for end in range(begin, len(marks), 13):
            gained = [(marks[end][f] - marks[begin][f]) / flow.weight for f, flow in enumerate(flows)]
            for f in range(len(flows)):
                for g in range(f):
                    assert abs(gained[f] - gained[g]) <= (depth + 1) * (most[f] + most[g]) + slack + 1e-6


@settings(max_examples=25, deadline=None)
@given(
    flood=st.integers(10, 200),
    weight=st.floats(0.1, 10.0),
    lane=st.sampled_from(LANES),
    depth=st.integers(1, 4),
)
def test_nobody_starves_beside_a_flood_in_every_lane(flood: int, weight: float, lane: str, depth: int) -> None:
    world = World()
    for slot in range(depth):
        world.join(slot)
    for other in LANES:
        world.submit(*((f"{other}-{number}", f"flood-{other}") for number in range(flood)), lane=other)
    world.append(tenant("late", weight=weight))
    world.submit(("mine", "late"), lane=lane)
    share = world.scheduler.state.policy.lanes[lane] / sum(world.scheduler.state.policy.lanes.values())
    for _ in range(3 * depth + int(6 / share)):
        if "mine" in world.started:
            break
        world.settle(world.busy()[0], "succeeded", 0.05)
    assert "mine" in world.started
