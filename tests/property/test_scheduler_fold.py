"""The fold's promises under any interleaving: one end for each job, no task twice at once, work-conserving, and the
same decisions from any snapshot."""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from streams.policy.decisions import Refuse
from streams.policy.scheduler import POLICY_VERSION, Scheduler
from streams.policy.state import Snapshot, decode_snapshot, encode_snapshot
from tests.support.world import World, ready

users = st.sampled_from(["ann", "bob", "cat"])
slots = st.integers(0, 3)


class Yard(RuleBasedStateMachine):
    """Users submit, cancel and repeat themselves; slots join, settle, fail and die; snapshots are taken."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.jobs: dict[str, str] = {}
        self.snapshots: list[tuple[int, bytes]] = []

    @rule(user=users, count=st.integers(1, 3))
    def submit(self, user: str, count: int) -> None:
        entries = []
        for _ in range(count):
            job_id = f"job-{len(self.jobs)}"
            self.jobs[job_id] = user
            entries.append({"kind": "stage_ready", "ready": ready(job_id, user)})
        self.world.append(*entries)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        """Admission sends a StageReady again after a crash."""
        job_id = data.draw(st.sampled_from(sorted(self.jobs)))
        self.world.append({"kind": "stage_ready", "ready": ready(job_id, self.jobs[job_id])})

    @rule(slot=slots)
    def join(self, slot: int) -> None:
        self.world.join(slot)

    @precondition(lambda self: self.world.epochs)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        self.world.lose(data.draw(st.sampled_from(sorted(self.world.epochs))))

    @precondition(lambda self: self.world.running)
    @rule(data=st.data(), gpu_seconds=st.floats(0.01, 50))
    def settle(self, data: st.DataObject, gpu_seconds: float) -> None:
        slot = data.draw(st.sampled_from(sorted(self.world.running)))
        canceled = self.world.running[slot]["job_id"] in self.world.stopped
        outcome = data.draw(st.sampled_from(["succeeded", "succeeded", "failed", *(["canceled"] if canceled else [])]))
        error = data.draw(st.sampled_from(["transient", "crash", "permanent"])) if outcome == "failed" else None
        self.world.settle(slot, outcome, gpu_seconds, error)

    @rule(data=st.data(), user=users)
    def cancel(self, data: st.DataObject, user: str) -> None:
        job_id = data.draw(st.sampled_from([*sorted(self.jobs), f"job-{len(self.jobs)}"]))
        request = {"job_id": job_id, "user_id": user, "reason": ""}
        self.world.append({"kind": "cancel", "cancel": request})

    @rule(user=users, weight=st.floats(0.1, 10))
    def reweigh(self, user: str, weight: float) -> None:
        self.world.append(
            {
                "kind": "tenant_changed",
                "tenant": {"user_id": user, "tier": "pro", "weight": weight, "max_running": None},
            }
        )

    @rule()
    def tick(self) -> None:
        self.world.append({"kind": "tick"})

    @rule()
    def snapshot(self) -> None:
        state = self.world.scheduler.state
        taken = encode_snapshot(Snapshot(policy_version=POLICY_VERSION, state=state))
        self.snapshots.append((len(self.world.inbox), taken))

    @invariant()
    def one_end_at_most(self) -> None:
        assert all(count == 1 for count in self.world.ends.values()), self.world.ends

    @invariant()
    def live_or_ended(self) -> None:
        live = set(self.world.scheduler.state.jobs)
        assert live.isdisjoint(self.world.ends)
        assert live | set(self.world.ends) == set(self.jobs)

    @invariant()
    def work_conserving(self) -> None:
        free = set(self.world.epochs) - set(self.world.running)
        assert not free or self.world.scheduler.queued_tasks == 0

    @invariant()
    def nothing_refused(self) -> None:
        assert not any(isinstance(d, Refuse) for decisions in self.world.decided for d in decisions)

    def teardown(self) -> None:
        """Ends everything that is left, then folds the inbox again from the start and from every snapshot."""
        self.world.join(0)
        for _ in range(40 * (len(self.jobs) + 1)):
            if self.world.running:
                self.world.settle(min(self.world.running), "succeeded")
            elif self.world.scheduler.state.jobs:
                self.world.wait(60)
            else:
                break
        assert set(self.world.ends) == set(self.jobs)
        self._same(Scheduler(), 0)
        for offset, taken in self.snapshots:
            again = Scheduler(state=decode_snapshot(taken).state)
            # What stands before the snapshot comes again, as after a crash between snapshot and commit.
            assert all(again.apply(known, self.world.inbox[known]) == [] for known in range(offset))
            self._same(again, offset)

    def _same(self, scheduler: Scheduler, start: int) -> None:
        folded: list[Any] = [scheduler.apply(o, self.world.inbox[o]) for o in range(start, len(self.world.inbox))]
        assert folded == self.world.decided[start:]


Yard.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestYard = Yard.TestCase
