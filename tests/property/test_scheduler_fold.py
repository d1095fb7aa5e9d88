"""The fold's promises under any interleaving: nothing starts before its time, over a cap or where it must not; one end
for each job; work-conserving; repeats change nothing; the same decisions from any snapshot."""

from collections.abc import Sequence
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from streams.policy.config import Policy, Tier, digest, dump_policy
from streams.policy.scheduler import POLICY_VERSION, Scheduler
from streams.policy.state import Job, SchedulerState, Snapshot, decode_snapshot, encode_snapshot
from tests.support.world import SERVES, Place, World, ready, routing, tenant

TIGHT = Policy(tiers={"free": Tier(max_running=2), "pro": Tier(weight=4.0, max_running=3)})
POLICIES = [
    TIGHT,
    Policy(tiers=TIGHT.tiers, affinity_gpu_seconds=0.0, lanes={"interactive": 50.0, "standard": 40.0, "batch": 10.0}),
]
users = st.sampled_from(["ann", "bob", "cat"])
lanes = st.sampled_from(["interactive", "standard", "batch"])
numbers = st.integers(0, 3)
versions: st.SearchStrategy[list[str]] = st.sampled_from([[], ["synthetic@1"], ["synthetic@1", "synthetic@2"]])
asked = st.fixed_dictionaries(
    {
        "lane": lanes,
        "priority": st.integers(1, 5),
        "model_version": st.sampled_from([None, None, None, "1", "2"]),
        "quality": st.sampled_from(["draft", "standard", "high"]),
        "start_by": st.none() | st.integers(0, 30_000),
        "finish_by": st.none() | st.integers(0, 60_000),
        "max_queue_depth": st.none() | st.integers(0, 4),
        "stage": st.sampled_from(["generate", "generate", "texture"]),
    }
)
# Repeats of these may come at any later time; of the others only before the next one of their user or slot.
TIMELESS = {"stage_ready", "stage_settled", "cancel", "slot_joined", "slot_lost", "routing_changed"}


class Yard(RuleBasedStateMachine):
    """Users submit, cancel and change their minds; slots join, settle, fail, drain and die; operators change rules;
    everything is repeated at times; snapshots are taken."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(scheduler=Scheduler(state=start()))
        self.snapshots: list[tuple[int, bytes]] = []
        self.revision = 0

    # ---- users --------------------------------------------------------------------------------------------------

    @rule(user=users, wishes=st.lists(asked, min_size=1, max_size=3))
    def submit(self, user: str, wishes: list[dict[str, Any]]) -> None:
        entries: list[dict[str, Any]] = []
        for wish in wishes:
            job_id = f"job-{len(self.world.asked) + len(entries)}"
            deadlines = {
                name: wish[name] if wish[name] is None else self.world.now + wish[name]
                for name in ("start_by", "finish_by")
            }
            entries.append({"kind": "stage_ready", "ready": ready(job_id, user, **{**wish, **deadlines})})
        self.world.append(*entries)

    @rule(data=st.data(), user=users)
    def cancel(self, data: st.DataObject, user: str) -> None:
        self.world.cancel(data.draw(st.sampled_from([*self.world.asked, f"job-{len(self.world.asked)}"])), user)

    @precondition(lambda self: self.world.asked)
    @rule(data=st.data(), user=users, kind=st.sampled_from(["reprioritise", "pause", "resume"]), one=st.booleans())
    def command(self, data: st.DataObject, user: str, kind: str, one: bool) -> None:
        job_id = data.draw(st.sampled_from([*self.world.asked])) if one else ""
        self.world.control(kind, job_id, user, data.draw(st.integers(1, 5)) if kind == "reprioritise" else None)

    # ---- slots --------------------------------------------------------------------------------------------------

    @initialize()
    def first_slot(self) -> None:
        self.world.join(0)

    @rule(
        slot=numbers, pool=st.sampled_from(["main", "fast", "batch"]), capacity=st.integers(1, 3), has=versions,
        serves=st.sampled_from([SERVES, SERVES, SERVES[:1], SERVES[1:]]),
    )  # fmt: skip
    def join(self, slot: int, pool: str, capacity: int, has: list[str], serves: list[str]) -> None:
        self.world.join(slot, pool=pool, capacity=capacity, versions=has, serves=serves)

    @precondition(lambda self: self.world.slots)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        self.world.lose(data.draw(st.sampled_from(sorted(self.world.slots))))

    @precondition(lambda self: self.world.slots)
    @rule(data=st.data(), draining=st.booleans())
    def drain(self, data: st.DataObject, draining: bool) -> None:
        self.world.drain(data.draw(st.sampled_from(sorted(self.world.slots))), draining)

    @precondition(lambda self: self.world.busy())
    @rule(data=st.data(), gpu_seconds=st.floats(0.01, 50))
    def settle(self, data: st.DataObject, gpu_seconds: float) -> None:
        slot = data.draw(st.sampled_from(self.world.busy()))
        job_id = data.draw(st.sampled_from(sorted(self.world.slots[slot].items)))
        canceled = job_id in self.world.stopped
        outcomes = ["succeeded", "succeeded", "failed", *(["canceled"] if canceled else [])]
        outcome = data.draw(st.sampled_from(outcomes))
        error = None
        if outcome == "failed":
            error = data.draw(st.sampled_from(["transient", "crash", "oom", "rate_limited", "permanent"]))
        after = data.draw(st.none() | st.floats(0, 90)) if error == "rate_limited" else None
        self.world.settle(slot, outcome, gpu_seconds, error, job_id=job_id, retry_after_seconds=after)

    # ---- operators and time -------------------------------------------------------------------------------------

    @rule(user=users, weight=st.floats(0.1, 10), tier=st.sampled_from(["free", "pro"]), cap=st.none() | numbers)
    def reweigh(self, user: str, weight: float, tier: str, cap: int | None) -> None:
        self.world.append(tenant(user, tier=tier, weight=weight, max_running=cap))

    @rule(share=st.sampled_from([0.0, 50.0, 100.0]), guarded=st.booleans())
    def route(self, share: float, guarded: bool) -> None:
        self.revision = max(self.revision, *(r.rule["revision"] for r in self._rules()), 0) + 1
        guard = {"min_tasks": 1, "failure_margin": 0.2, "p95_margin": 0.5} if guarded else None
        self.world.append(routing(self.revision, {"1": 100.0 - share, "2": share}, guard=guard))

    def _rules(self) -> Sequence[Any]:
        return [*self.world.scheduler.state.routing.values()]

    @rule(number=st.integers(0, 1))
    def repolicy(self, number: int) -> None:
        policy = POLICIES[number]
        change = {"digest": digest(policy), "body": dump_policy(policy)}
        self.world.append({"kind": "policy_changed", "policy": change})

    @rule(seconds=st.sampled_from([0.0, 0.3, 2.0, 30.0]))
    def tick(self, seconds: float) -> None:
        self.world.wait(seconds)

    @precondition(lambda self: self.world.inbox)
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        """A writer that crashed between send and row sends again."""
        records = [record for record in self.world.inbox if record["entries"][0]["kind"] in TIMELESS]
        record = data.draw(st.sampled_from([*records, self.world.inbox[-1]]))
        if record["entries"][0]["kind"] == "tick":
            return
        before = view(self.world.scheduler.state)
        self.world.inbox.append(record)
        decisions = self.world.scheduler.apply(len(self.world.inbox) - 1, record)
        self.world.decided.append(decisions)
        assert decisions == []
        assert view(self.world.scheduler.state) == before

    @rule()
    def snapshot(self) -> None:
        state = self.world.scheduler.state
        taken = encode_snapshot(Snapshot(policy_version=POLICY_VERSION, state=state))
        self.snapshots.append((len(self.world.inbox), taken))

    # ---- promises -----------------------------------------------------------------------------------------------

    @invariant()
    def one_end_and_one_closing(self) -> None:
        assert all(count == 1 for count in self.world.ends.values() if count), self.world.ends
        assert self.world.closed == +self.world.ends

    @invariant()
    def live_or_ended(self) -> None:
        live = set(self.world.scheduler.state.jobs)
        ended = set(+self.world.ends)
        assert live.isdisjoint(ended)
        assert live | ended == set(self.world.asked)

    @invariant()
    def slots_and_fold_agree(self) -> None:
        for number, place in self.world.slots.items():
            slot = self.world.scheduler.state.slots[number]
            assert list(slot.jobs) == list(place.items)
            assert slot.draining == place.draining

    @invariant()
    def work_conserving(self) -> None:
        waiting = [job for job in self.world.scheduler.state.jobs.values() if self._may_run(job)]
        for place in self.world.slots.values():
            if place.draining or len(place.items) >= place.change["capacity"]:
                continue
            left_idle = [job.job_id for job in waiting if self._fits(job, place)]
            assert not left_idle, f"{left_idle} wait beside a free place of {place.change}"

    def _may_run(self, job: Job) -> bool:
        state = self.world.scheduler.state
        row = state.tenants.get(job.user_id)
        cap = row.max_running if row is not None else None
        if cap is None:
            cap = state.policy.tier(row.tier if row is not None else "free").max_running
        waits = job.slot is None and not job.paused and job.due_at == 0
        return waits and self.world.running_of(job.user_id) < cap

    def _fits(self, job: Job, place: Place) -> bool:
        change = place.change
        pool = self.world.scheduler.state.policy.pool(change["pool"])
        if f"{job.pipeline_id}/{job.stage}" not in change["serves"] or job.lane not in pool.lanes:
            return False
        if change["versions"] and f"{job.pipeline_id}@{job.version}" not in change["versions"]:
            return False
        free = sum(
            other.change["capacity"] - len(other.items)
            for other in self.world.slots.values()
            if other.change["pool"] == change["pool"] and not other.draining
        )
        return job.lane == pool.first or free > pool.reserve

    @invariant()
    def timers_are_known(self) -> None:
        due = [job.due_at for job in self.world.scheduler.state.jobs.values() if job.due_at]
        assert all(at > self.world.scheduler.state.now for at in due)

    def teardown(self) -> None:
        """Ends everything that is left, then folds the inbox again from the start and from every snapshot."""
        world = self.world
        for number in range(2):
            world.join(number, capacity=3)  # of pool main: runs everything
        for user in ("ann", "bob", "cat"):
            world.append(tenant(user, tier="pro"))
            world.control("resume", "", user)
        for _ in range(60 * (len(world.asked) + 1)):
            if world.busy():
                world.settle(world.busy()[0], "succeeded")
            elif world.scheduler.state.jobs:
                world.wait(60)
                for user in ("ann", "bob", "cat"):
                    world.control("resume", "", user)
            else:
                break
        assert set(+world.ends) == set(world.asked)
        self._same(Scheduler(state=start()), 0)
        for offset, taken in self.snapshots:
            again = Scheduler(state=decode_snapshot(taken).state)
            # What stands before the snapshot comes again, as after a crash between snapshot and commit.
            assert all(again.apply(known, world.inbox[known]) == [] for known in range(offset))
            self._same(again, offset)

    def _same(self, scheduler: Scheduler, begin: int) -> None:
        for offset in range(begin, len(self.world.inbox)):
            assert scheduler.apply(offset, self.world.inbox[offset]) == self.world.decided[offset]


def start() -> SchedulerState:
    """A state whose users soon reach their caps."""
    return SchedulerState(policy=TIGHT, policy_digest=digest(TIGHT))


def view(state: SchedulerState) -> bytes:
    """All of a state that later decisions depend on."""
    as_if = decode_snapshot(encode_snapshot(Snapshot(policy_version=POLICY_VERSION, state=state))).state
    as_if.next_offset = 0
    return encode_snapshot(Snapshot(policy_version=POLICY_VERSION, state=as_if))


Yard.TestCase.settings = settings(max_examples=80, stateful_step_count=50, deadline=None)
TestYard = Yard.TestCase
