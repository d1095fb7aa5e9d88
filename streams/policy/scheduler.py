"""The scheduler: a deterministic fold over its inbox.

`Scheduler.apply(offset, record)` takes one InboxBatch and returns decisions. Everything that a decision reads comes
through the inbox, time included (`now` is the greatest `at` read so far), so the same inbox gives the same decisions,
on any machine and after any crash. Dispatching happens after each record, never between its entries.

A task is one stage of one job; its kind is `pipeline/stage`, which slots name in what they serve.
"""

import heapq
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from schemas.events import dispatch_id, job_event
from schemas.jobs import Transition, is_final_failure
from schemas.pipelines import PIPELINES
from streams.policy.decisions import Decision, Dispatch, Refuse, Report, StopWork, Tell
from streams.policy.fairqueue import FairQueue, Task
from streams.policy.state import EarlyCancel, Job, SchedulerState, Slot

# Raised when the same inbox would give other decisions than before; a snapshot of another version is not used.
POLICY_VERSION: Final = 1

_SPEC_FIELDS: Final = (
    "job_id", "user_id", "workflow", "pipeline_id", "model_version", "prompt", "seed", "quality", "formats",
    "parameters", "traceparent", "created_at",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SchedulerPolicy:
    """How the scheduler decides.

    max_attempts: of one stage; remember_ms: how long ended jobs and early cancels are known, so that repeats of their
    records change nothing; cost_decay: weight of the newest measurement in the mean cost of a kind of task;
    backlog_users: how many users a load report names.
    """

    domain: str = "main"
    max_attempts: int = 3
    remember_ms: int = 24 * 3_600_000
    cost_decay: float = 0.2
    backlog_users: int = 1000


class Scheduler:
    """State, the queue derived from it, and the decisions of the record at hand."""

    def __init__(self, policy: SchedulerPolicy, state: SchedulerState | None = None) -> None:
        self.policy = policy
        self.state = state or SchedulerState()
        self._decisions: list[Decision] = []
        waiting = [self._task(j) for j in self.state.jobs.values() if j.slot is None]
        self._queue = FairQueue(self.state.clockwork, waiting)
        self._free: dict[tuple[str, ...], list[int]] = {}
        for slot in self.state.slots.values():
            if slot.job_id is None:
                self._set_free(slot)

    @property
    def queued_tasks(self) -> int:
        """How many tasks wait."""
        return len(self._queue)

    def apply(self, offset: int, record: Mapping[str, Any]) -> list[Decision]:
        """Folds one InboxBatch that stands at `offset`; records below `state.next_offset` are known and give []."""
        if offset < self.state.next_offset:
            return []
        self._decisions = []
        for index, entry in enumerate(record["entries"]):
            self.state.now = max(self.state.now, entry["at"])
            try:
                self._entry(entry)
            except Exception as error:  # one bad entry must not stop everybody's queue; a replay refuses it again
                self._decisions.append(Refuse(entry=index, detail=repr(error)))
        self._dispatch()
        self.state.next_offset = offset + 1
        return self._decisions

    def _entry(self, entry: Mapping[str, Any]) -> None:
        kind = entry["kind"]
        if kind == "stage_ready":
            self._stage_ready(entry["ready"])
        elif kind == "stage_settled":
            self._stage_settled(entry["settled"])
        elif kind == "slot_joined":
            self._slot_joined(entry["slot"])
        elif kind == "slot_lost":
            self._slot_lost(entry["slot"]["slot"], entry["slot"]["epoch"])
        elif kind == "cancel":
            self._cancel(entry["cancel"])
        elif kind == "tenant_changed":
            self._queue.reweigh(entry["tenant"]["user_id"], entry["tenant"]["weight"])
        elif kind == "tick":
            self._tick()

    # ---- jobs ---------------------------------------------------------------------------------------------------

    def _stage_ready(self, ready: Mapping[str, Any]) -> None:
        state = self.state
        job_id = ready["job_id"]
        if job_id in state.jobs or job_id in state.finished:
            return  # admission repeats its sends after a crash
        if not _known(ready["pipeline_id"], ready["stage"]):
            self._refuse(ready)
            return
        state.sequence += 1
        pipeline = PIPELINES[ready["pipeline_id"]]
        spec = {name: ready[name] for name in _SPEC_FIELDS}
        spec["model_version"] = spec["model_version"] or pipeline.model_versions[-1]
        job = Job(
            spec=spec,
            sequence=state.sequence,
            stage_index=pipeline.stage_index(ready["stage"]),
            artefacts=list(ready["artefacts"]),
            ready_at=state.now,
        )
        state.jobs[job_id] = job
        early = state.early_cancels.pop(job_id, None)
        if early is not None and early.user_id == job.spec["user_id"]:
            self._end(job, Transition.CANCELED, "canceled", early.reason or "canceled by the user")
            return
        self._queue.push(self._task(job))

    def _refuse(self, ready: Mapping[str, Any]) -> None:
        """Admission knows a pipeline that this scheduler does not: an upgrade in the wrong order."""
        message = f"pipeline_id {ready['pipeline_id']!r} with stage {ready['stage']!r} is not known to the scheduler"
        event = job_event(
            ready,
            Transition.FAILED,
            at=self.state.now,
            stage_count=0,
            error_class="invalid",
            error_message=message,
        )
        self._decisions.append(Tell(event=event))
        self.state.finished[ready["job_id"]] = self.state.now

    def _stage_settled(self, settled: Mapping[str, Any]) -> None:
        job = self.state.jobs.get(settled["job_id"])
        if job is None or not self._runs(job, settled):
            return  # a stage that was taken from its slot meanwhile: its transaction came too late to be one of ours
        slot = self.state.slots[settled["slot"]]
        self._release(slot)
        job.slot = None
        measured = settled["gpu_seconds"]
        self._queue.settle(job.spec["user_id"], job.charged, measured)
        outcome = settled["outcome"]
        if outcome == "succeeded":
            self._learn(self._kind(job), measured)
            job.artefacts.extend(settled["artefacts"])
            if job.stage_index + 1 == len(PIPELINES[job.spec["pipeline_id"]].stages):
                self._forget(job)  # the worker's transaction wrote the job's end
                return
            job.stage_index += 1
            job.attempt = 0
        elif outcome == "canceled" or is_final_failure(
            settled["error_class"], settled["attempt"], self.policy.max_attempts
        ):
            self._forget(job)
            return
        self._requeue(job)

    def _runs(self, job: Job, settled: Mapping[str, Any]) -> bool:
        here = (job.slot, job.epoch, job.attempt, self._stage(job))
        return here == (settled["slot"], settled["epoch"], settled["attempt"], settled["stage"])

    def _requeue(self, job: Job) -> None:
        """The job waits for its next task, unless its user wants it canceled: then nobody else will say so."""
        job.ready_at = self.state.now
        if job.cancel_reason is not None:
            self._end(job, Transition.CANCELED, "canceled", job.cancel_reason or "canceled by the user")
        else:
            self._queue.push(self._task(job))

    def _cancel(self, cancel: Mapping[str, Any]) -> None:
        state = self.state
        job = state.jobs.get(cancel["job_id"])
        if job is None:
            if cancel["job_id"] not in state.finished:
                state.early_cancels[cancel["job_id"]] = EarlyCancel(
                    user_id=cancel["user_id"], reason=cancel["reason"], at=state.now
                )
            return
        if job.spec["user_id"] != cancel["user_id"] or job.cancel_reason is not None:
            return
        job.cancel_reason = cancel["reason"]
        if job.slot is None:
            self._queue.remove(cancel["job_id"])
            self._end(job, Transition.CANCELED, "canceled", cancel["reason"] or "canceled by the user")
        else:
            self._decisions.append(
                StopWork(
                    slot=job.slot,
                    epoch=job.epoch,
                    job_id=cancel["job_id"],
                    stage=self._stage(job),
                    attempt=job.attempt,
                )
            )

    def _end(self, job: Job, transition: Transition, error_class: str, message: str) -> None:
        """The scheduler itself ends a job that no slot holds."""
        self._tell(job, transition, error_class=error_class, error_message=message)
        self._forget(job)

    def _forget(self, job: Job) -> None:
        del self.state.jobs[job.spec["job_id"]]
        self.state.finished[job.spec["job_id"]] = self.state.now

    def _tell(self, job: Job, transition: Transition, **details: Any) -> None:
        self._decisions.append(
            Tell(
                event=job_event(
                    job.spec,
                    transition,
                    at=self.state.now,
                    stage=self._stage(job),
                    stage_index=job.stage_index,
                    stage_count=len(PIPELINES[job.spec["pipeline_id"]].stages),
                    attempt=job.attempt,
                    **details,
                )
            )
        )

    # ---- slots --------------------------------------------------------------------------------------------------

    def _slot_joined(self, change: Mapping[str, Any]) -> None:
        known = self.state.slots.get(change["slot"])
        if known is not None:
            if change["epoch"] <= known.epoch:
                return
            self._slot_lost(known.slot, known.epoch)
        slot = Slot(
            slot=change["slot"],
            epoch=change["epoch"],
            pool=change["pool"],
            resource_class=change["resource_class"],
            serves=tuple(sorted(change["serves"])),
        )
        self.state.slots[slot.slot] = slot
        self._set_free(slot)

    def _slot_lost(self, number: int, epoch: int) -> None:
        slot = self.state.slots.get(number)
        if slot is None or slot.epoch != epoch:
            return
        del self.state.slots[number]
        if slot.job_id is None:
            return
        job = self.state.jobs[slot.job_id]
        job.slot = None
        self._queue.settle(job.spec["user_id"], job.charged, 0.0)  # our failure, not the user's cost
        self._tell(
            job,
            Transition.STAGE_LOST,
            slot=slot.slot,
            epoch=slot.epoch,
            pool=slot.pool,
            resource_class=slot.resource_class,
            error_class="lost",
            error_message="the worker was lost",
        )
        if is_final_failure("lost", job.attempt, self.policy.max_attempts):
            self._end(
                job, Transition.FAILED, "lost", f"the worker was lost {job.attempt} times while it ran this stage"
            )
        else:
            self._requeue(job)

    def _release(self, slot: Slot) -> None:
        slot.job_id = None
        self._set_free(slot)

    def _set_free(self, slot: Slot) -> None:
        heapq.heappush(self._free.setdefault(slot.serves, []), slot.slot)

    def _first_free(self, serves: tuple[str, ...]) -> int | None:
        """The lowest free slot of those that serve exactly this; numbers of slots that are gone or busy are dropped."""
        heap = self._free[serves]
        while heap:
            slot = self.state.slots.get(heap[0])
            if slot is not None and slot.job_id is None and slot.serves == serves:
                return heap[0]
            heapq.heappop(heap)
        return None

    # ---- dispatch -----------------------------------------------------------------------------------------------

    def _dispatch(self) -> None:
        """Free slots take the waiting tasks with the least start tags that they can run: work-conserving."""
        while len(self._queue):
            best: tuple[float, int, int, int, tuple[str, ...], str] | None = None
            for serves in self._free:
                if self._first_free(serves) is None:
                    continue
                for kind in serves:
                    head = self._queue.peek(kind)
                    if head is not None:
                        # Among slots that could take the same task, the most specialised one.
                        choice = (*head, len(serves), serves, kind)
                        best = choice if best is None else min(best, choice)
            if best is None:
                return
            self._start(kind=best[5], number=heapq.heappop(self._free[best[4]]))
        if not self.state.jobs:
            self._queue.idle()

    def _start(self, *, kind: str, number: int) -> None:
        slot = self.state.slots[number]
        task, charged = self._queue.pop(kind, self._estimate(kind))
        job = self.state.jobs[task.job_id]
        job.attempt += 1
        job.slot, job.epoch, job.charged, job.dispatched_at = number, slot.epoch, charged, self.state.now
        slot.job_id = task.job_id
        stage = self._stage(job)
        item = {
            **job.spec,
            "dispatch_id": dispatch_id(task.job_id, stage, job.attempt),
            "stage": stage,
            "stage_index": job.stage_index,
            "stage_count": len(PIPELINES[job.spec["pipeline_id"]].stages),
            "attempt": job.attempt,
            "max_attempts": self.policy.max_attempts,
            "artefacts": list(job.artefacts),
            "ready_at": job.ready_at,
            "dispatched_at": job.dispatched_at,
        }
        self._decisions.append(Dispatch(slot=number, epoch=slot.epoch, item=item))

    def _estimate(self, kind: str) -> float:
        mean = self.state.mean_gpu_seconds.get(kind)
        if mean is not None:
            return mean
        pipeline_id, _, stage = kind.partition("/")
        pipeline = PIPELINES[pipeline_id]
        return pipeline.stages[pipeline.stage_index(stage)].prior_gpu_seconds

    def _learn(self, kind: str, measured: float) -> None:
        mean = self._estimate(kind)
        self.state.mean_gpu_seconds[kind] = mean + self.policy.cost_decay * (measured - mean)

    def _stage(self, job: Job) -> str:
        return PIPELINES[job.spec["pipeline_id"]].stages[job.stage_index].name

    def _kind(self, job: Job) -> str:
        return f"{job.spec['pipeline_id']}/{self._stage(job)}"

    def _task(self, job: Job) -> Task:
        return Task(job_id=job.spec["job_id"], user_id=job.spec["user_id"], kind=self._kind(job), sequence=job.sequence)

    # ---- time ---------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        """Once a second: forgets what is long past and reports the load."""
        horizon = self.state.now - self.policy.remember_ms
        for job_id, at in list(self.state.finished.items()):
            if at > horizon:
                break
            del self.state.finished[job_id]
        for job_id, early in list(self.state.early_cancels.items()):
            if early.at <= horizon:
                del self.state.early_cancels[job_id]
        self._decisions.append(Report(load=self._load()))

    def _load(self) -> dict[str, Any]:
        queue, state = self._queue, self.state
        return {
            "domain": self.policy.domain,
            "virtual_time": state.clockwork.virtual_time,
            "queued_tasks": len(queue),
            "running_tasks": len(state.jobs) - len(queue),
            "live_slots": len(state.slots),
            "queued_gpu_seconds": sum(self._estimate(kind) * count for kind, count in queue.waiting_by_kind().items()),
            "backlog": [self._backlog(user_id, count) for user_id, count in queue.users_waiting()][
                : self.policy.backlog_users
            ],
            "at": state.now,
        }

    def _backlog(self, user_id: str, count: int) -> dict[str, Any]:
        flow = self._queue.flow(user_id)
        costs = self.state.mean_gpu_seconds
        mean = sum(costs.values()) / len(costs) if costs else 1.0
        return {
            "user_id": user_id,
            "start_tag": flow.tag,
            "step": mean / flow.weight,
            "queued_tasks": count,
        }


def _known(pipeline_id: str, stage: str) -> bool:
    pipeline = PIPELINES.get(pipeline_id)
    return pipeline is not None and any(spec.name == stage for spec in pipeline.stages)
