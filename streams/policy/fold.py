"""What all parts of the fold share: the state, what is derived from it, and the decisions of the record at hand.

A job that has not ended is either on a slot, or in the queue, or it waits outside the queue for its next attempt's time
or for its user to resume it.
"""

from collections.abc import Callable, Mapping
from sys import intern
from typing import Any, Final

from schemas.events import job_event
from schemas.jobs import Transition
from schemas.pipelines import PIPELINES
from streams.policy.config import Policy
from streams.policy.costs import estimate
from streams.policy.decisions import Closed, Decision, Tell
from streams.policy.fairqueue import FairQueue, Task
from streams.policy.state import Job, SchedulerState, Tenant
from streams.policy.timers import Timers

START: Final = "start"
FINISH: Final = "finish"
RETRY: Final = "retry"
_UNKNOWN: Final = Tenant()


class Fold:
    """State, queue, timers and decisions. Derived parts are built from the state, with the same result at any time."""

    def __init__(self, domain: str, state: SchedulerState) -> None:
        self.domain = domain
        self.state = state
        self.decisions: list[Decision] = []
        self.timers = Timers()
        # Whether any slot, busy or not, can run a kind for a lane; set by the one who knows the slots.
        self.servable: Callable[[str, str], bool] = _anything
        self.running: dict[str, int] = {}  # user -> tasks on slots
        self.running_in: dict[str, int] = dict.fromkeys(state.policy.lanes, 0)  # lane -> tasks on slots
        # lane -> second -> tasks in the queue that became ready in it
        self.ages: dict[str, dict[int, int]] = {lane: {} for lane in state.policy.lanes}
        self._caps: dict[str, int] = {}  # user -> tasks that may run at once, as far as they were asked for
        self._closed: dict[str, list[str]] = {}
        for job in state.jobs.values():
            self._recall(job)
        parked = {job.user_id for job in state.jobs.values() if self._at_cap(job.user_id)}
        queued = [job for job in state.jobs.values() if self._belongs_in_queue(job)]
        self.queue = FairQueue(state.clockwork, state.policy.lanes, map(_task, queued), parked)
        for job in queued:
            self._count_age(job, +1)

    @property
    def now(self) -> int:
        """Milliseconds; the greatest time read."""
        return self.state.now

    @property
    def policy(self) -> Policy:
        """The policy in force."""
        return self.state.policy

    def take_decisions(self) -> list[Decision]:
        """The decisions since the last call; jobs that ended are told in one piece for each user."""
        for user_id, job_ids in self._closed.items():
            self.decisions.append(Closed(user_id=user_id, job_ids=tuple(job_ids), at=self.now))
        taken, self.decisions, self._closed = self.decisions, [], {}
        return taken

    # ---- users --------------------------------------------------------------------------------------------------

    def tenant(self, user_id: str) -> Tenant:
        """A user's standing; that of tier `free` for users that control.tenants does not have."""
        return self.state.tenants.get(user_id, _UNKNOWN)

    def meet(self, user_id: str) -> None:
        """A user has a job; weight and cap are in the queue from here on."""
        if user_id not in self._caps:
            self.weigh(user_id)

    def weigh(self, user_id: str) -> None:
        """The queue's weight and cap of a user follow the tenant's row and the policy."""
        tenant = self.tenant(user_id)
        weight = self.policy.tier(tenant.tier).weight * tenant.weight
        if self.queue.weight(user_id) != weight:
            self.queue.reweigh(user_id, weight)
        self._caps.pop(user_id, None)
        if self._at_cap(user_id):
            self.queue.park(user_id)
        else:
            self.queue.unpark(user_id)

    def cap(self, user_id: str) -> int:
        """How many tasks of the user may run at once."""
        cap = self._caps.get(user_id)
        if cap is None:
            tenant = self.tenant(user_id)
            cap = tenant.max_running
            if cap is None:
                cap = self.policy.tier(tenant.tier).max_running
            self._caps[user_id] = cap
        return cap

    def forget_caps(self) -> None:
        """Users are met anew."""
        self._caps.clear()

    def follow_policy(self) -> None:
        """The policy has changed: it acts on what waits already."""
        self.queue.reweigh_lanes(self.policy.lanes)
        self.forget_caps()
        for user_id in {job.user_id: None for job in self.state.jobs.values()}:
            self.weigh(user_id)

    def places(self, user_id: str, lane: str) -> int:
        """How many of the user's tasks in a lane may start before the cap holds back the rest: those in more urgent
        lanes go first. Negative when they alone exceed it."""
        urgent = self.queue.lanes[: self.queue.lanes.index(lane)]
        before = sum(self.queue.waiting_in(other, user_id) for other in urgent)
        return self.cap(user_id) - self.running.get(user_id, 0) - before

    def _at_cap(self, user_id: str) -> bool:
        return self.running.get(user_id, 0) >= self.cap(user_id)

    # ---- jobs ---------------------------------------------------------------------------------------------------

    def enqueue(self, job: Job) -> None:
        """The job's task begins to wait in the queue."""
        fresh = job.kind not in self.queue.kinds(job.lane)
        self.queue.push(_task(job))
        if fresh and not self.servable(job.lane, job.kind):
            self.queue.stall(job.lane, job.kind)
        self._count_age(job, +1)

    def withdraw(self, job: Job) -> None:
        """The job's task waits in the queue no more."""
        if self.queue.remove(job.job_id):
            self._count_age(job, -1)

    def popped(self, job: Job) -> None:
        """The queue has given the job's task to a slot. A user at the cap of running tasks is left out of the order."""
        self._count_age(job, -1)
        self._count_running(job, +1)
        if self._at_cap(job.user_id):
            self.queue.park(job.user_id)

    def returned(self, job: Job, gpu_seconds: float) -> None:
        """The task left its slot; what it was charged becomes what it cost."""
        user_id = job.user_id
        self.queue.settle(
            job.lane, user_id, charged=job.charged, estimate=job.estimate, measured_gpu_seconds=gpu_seconds
        )
        job.slot = None
        self._count_running(job, -1)
        if self.queue.is_parked(user_id) and not self._at_cap(user_id):
            self.queue.unpark(user_id)

    def forget(self, job: Job) -> None:
        """The job has ended, whoever told it."""
        del self.state.jobs[job.job_id]
        for name in (START, FINISH, RETRY):
            self.timers.cancel((job.job_id, name))
        self.close(job.user_id, job.job_id)

    def close(self, user_id: str, job_id: str) -> None:
        """A job of the user is no more; its id is known for a while, so that repeats of its records change nothing."""
        self.state.finished[job_id] = self.now
        self._closed.setdefault(user_id, []).append(job_id)

    def tell(self, job: Job, transition: Transition, **details: Any) -> None:
        """A JobEvent about a job of a known pipeline."""
        about: Mapping[str, Any] = {
            "job_id": job.job_id,
            "user_id": job.user_id,
            "pipeline_id": job.pipeline_id,
            "created_at": job.created_at,
            "traceparent": job.traceparent,
            "lane": job.lane,
            "tier": job.tier,
            "priority": job.priority,
            "retry_of": job.retry_of,
            "adjustments": job.adjustments,
        }
        event = job_event(
            about,
            transition,
            at=self.now,
            stage=job.stage,
            stage_index=job.stage_index,
            stage_count=len(PIPELINES[job.pipeline_id].stages),
            attempt=job.attempt,
            model_version=job.version if job.attempt else None,
            **details,
        )
        self.decisions.append(Tell(event=event))

    def oldest_age_seconds(self, lane: str) -> float:
        """How long the oldest task in the queue of a lane has waited, to a second."""
        seconds = self.ages[lane]
        return max(0.0, self.now / 1000 - min(seconds)) if seconds else 0.0

    def queued_gpu_seconds(self, lane: str) -> float:
        """Estimated cost of what waits in a lane. Summed in a fixed order: so are all sums of floats that decide."""
        return sum(estimate(self.state, kind) * count for kind, count in sorted(self.queue.kinds(lane).items()))

    # ---- inside -------------------------------------------------------------------------------------------------

    def _belongs_in_queue(self, job: Job) -> bool:
        return job.slot is None and not job.paused and not job.due_at

    def _recall(self, job: Job) -> None:
        """What is derived from a job of a snapshot: timers, counts, and one object for what many jobs share."""
        for name in ("user_id", "pipeline_id", "tier", "lane", "quality", "kind"):
            setattr(job, name, intern(getattr(job, name)))
        if job.slot is not None:
            self._count_running(job, +1)
        if job.start_by is not None and not job.first_at:
            self.timers.push(job.start_by, (job.job_id, START))
        # A deadline that has passed while the job runs was acted upon: it must not fire again.
        if job.finish_by is not None and job.finish_by > self.now:
            self.timers.push(job.finish_by, (job.job_id, FINISH))
        if job.due_at:
            self.timers.push(job.due_at, (job.job_id, RETRY))

    def _count_running(self, job: Job, change: int) -> None:
        self.running_in[job.lane] += change
        count = self.running.get(job.user_id, 0) + change
        if count:
            self.running[job.user_id] = count
        else:
            del self.running[job.user_id]

    def _count_age(self, job: Job, change: int) -> None:
        seconds = self.ages[job.lane]
        second = job.ready_at // 1000
        seconds[second] = seconds.get(second, 0) + change
        if not seconds[second]:
            del seconds[second]


def _anything(_lane: str, _kind: str) -> bool:
    return True


def _task(job: Job) -> Task:
    return Task(job.priority, job.sequence, job.job_id, job.user_id, job.lane, job.kind)
