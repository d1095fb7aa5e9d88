"""A job's life in the fold: ready, settled, lost, due, ended."""

from collections.abc import Mapping
from functools import lru_cache
from sys import intern
from typing import Any, Final

from schemas.events import job_event
from schemas.jobs import Transition, is_final_failure
from schemas.pipelines import PIPELINES, Pipeline, kind
from streams.policy import costs, retries, routing
from streams.policy.config import LANES
from streams.policy.decisions import Platform, Route, StopWork, Tell
from streams.policy.fold import FINISH, RETRY, START, Fold
from streams.policy.letters import dead_letter, dead_record
from streams.policy.slots import Slots
from streams.policy.state import Job, Slot

CANCELED: Final = "canceled"
START_DEADLINE: Final = "start_deadline"
FINISH_DEADLINE: Final = "finish_deadline"
QUEUE_DEPTH: Final = "queue_depth"
LOST: Final = "lost"
# Failures that are ours, not the user's: they cost the user nothing.
REFUNDED: Final = frozenset({LOST, "overload", "rate_limited"})
# A longer queue notes what to expect for one job in so many.
_ALL_NOTED: Final = 1_000
_NOTED_EACH: Final = 8
# The guard looks at an arm when it has failed, and each so many tasks.
_GUARD_EVERY: Final = 8


class Jobs:
    """What happens to jobs, and what is told of it."""

    def __init__(self, fold: Fold, slots: Slots) -> None:
        self._fold = fold
        self._slots = slots
        self._bounded: list[tuple[Job, int]] = []  # jobs that came with this record and a bound on the queue's depth

    # ---- they come ----------------------------------------------------------------------------------------------

    def ready(self, ready: Mapping[str, Any]) -> None:
        """Admission has a job for us: its first stage, or of a repeated job the one that failed."""
        fold, state = self._fold, self._fold.state
        job_id = ready["job_id"]
        if job_id in state.jobs or job_id in state.finished:
            return  # admission repeats its sends after a crash
        if ready["lane"] not in LANES:
            raise ValueError(f"lane: {ready['lane']!r} is none of {', '.join(LANES)}")
        pipeline = PIPELINES.get(ready["pipeline_id"])
        index = _stage_index(pipeline, ready["stage"])
        if pipeline is None or index is None:
            self._refuse(ready)
            return
        state.sequence += 1
        job = Job(
            job_id=job_id,
            user_id=intern(ready["user_id"]),
            pipeline_id=pipeline.pipeline_id,
            tier=intern(ready["tier"]),
            lane=intern(ready["lane"]),
            quality=intern(ready["quality"]),
            wanted_version=ready["model_version"],
            texture_size=ready["texture_size"],
            priority=ready["priority"],
            sequence=state.sequence,
            stage_index=index,
            artefacts=tuple(ready["artefacts"]),
            start_by=ready["start_by"],
            finish_by=ready["finish_by"],
            retry_of=ready["retry_of"],
            traceparent=ready["traceparent"],
            created_at=ready["created_at"],
            request=ready["request"],
            arrived_at=state.now,
            ready_at=state.now,
        )
        job.kind = self._kind(job)
        state.jobs[job_id] = job
        early = state.early_cancels.pop(early_key(job_id, job.user_id), None)
        if early is not None:
            self.end(job, Transition.CANCELED, CANCELED, early.reason or "canceled by the user")
            return
        if job.start_by is not None:
            fold.timers.push(job.start_by, (job_id, START))
        if job.finish_by is not None:
            fold.timers.push(job.finish_by, (job_id, FINISH))
        if ready["max_queue_depth"] is not None:
            self._bounded.append((job, ready["max_queue_depth"]))
        fold.meet(job.user_id)
        self._expect(job)
        fold.enqueue(job)

    def _expect(self, job: Job) -> None:
        """Notes what the job has to expect; beyond the cap a user waits for own tasks. Of many jobs one stands for
        some: each note is memory for as long as the job waits."""
        fold, queue, user_id = self._fold, self._fold.queue, job.user_id
        each = 1 if len(queue) < _ALL_NOTED else _NOTED_EACH
        if job.sequence % each:
            return
        cost = costs.rest_of_job(fold.state, job.kind, job.quality)
        own = queue.waiting_in(job.lane, user_id)
        behind = max(0, own + 1 - fold.places(user_id, job.lane))
        least = behind * costs.rest_of_job(fold.state, job.kind) / max(1, fold.cap(user_id))
        tag = max(queue.tag(job.lane, user_id), queue.lane_virtual_time(job.lane))
        tag += own * costs.estimate(fold.state, job.kind) / queue.weight(user_id)
        job.expected = fold.state.calibration.note_arrival(job.lane, tag, each * cost, least_wait_seconds=least)

    def check_depth(self) -> None:
        """After dispatch: jobs that came with this record and still wait behind more tasks than they accept, the newest
        first."""
        queue = self._fold.queue
        for job, depth in reversed(self._bounded):
            if queue.task(job.job_id) is not None and len(queue) - 1 > depth:
                message = f"max_queue_depth: {len(queue) - 1} tasks wait already; {depth} were accepted"
                self.end(job, Transition.ABORTED, QUEUE_DEPTH, message)
        self._bounded.clear()

    def _refuse(self, ready: Mapping[str, Any]) -> None:
        """Admission knows a pipeline that this scheduler does not: an upgrade in the wrong order."""
        fold = self._fold
        message = f"pipeline_id {ready['pipeline_id']!r} with stage {ready['stage']!r} is not known to the scheduler"
        event = job_event(
            {**ready, "workflow": "unknown"},
            Transition.FAILED,
            at=fold.now,
            stage_count=0,
            error_class="invalid",
            error_message=message,
        )
        fold.decisions.append(Tell(event=event))
        fold.decisions.append(dead_record(ready, error_class="invalid", message=message, at=fold.now))
        fold.close(ready["user_id"], ready["job_id"])

    def _kind(self, job: Job) -> str:
        """What a slot must be able to run for the job's stage; this is where routing chooses a version."""
        pipeline = PIPELINES[job.pipeline_id]
        version = job.wanted_version
        if version is None:
            version = pipeline.model_versions[-1]
            if self._fold.state.routing:
                routed = self._fold.state.routing.get(f"{job.pipeline_id}/{pipeline.stages[job.stage_index].name}")
                if routed is not None:
                    version = routing.choose(routed.rule, job.user_id)
        return _kind_of(job.pipeline_id, job.stage_index, version)

    # ---- they go on ---------------------------------------------------------------------------------------------

    def settled(self, settled: Mapping[str, Any]) -> None:
        """A slot's transaction said how an attempt ended."""
        job = self._fold.state.jobs.get(settled["job_id"])
        if job is None or not _runs(job, settled):
            return  # a stage that was taken from its slot meanwhile: its transaction came too late to be one of ours
        slot = self._slots.release(settled["slot"], job.job_id)
        outcome, error_class = settled["outcome"], settled["error_class"]
        if self._fold.state.routing:
            self._note(job, settled)
        if outcome == "succeeded":
            measured = settled["gpu_seconds"]
            self._fold.returned(job, measured)
            costs.learn(self._fold.state, job.kind, slot.pool, job.quality, measured)
            costs.learn_of(self._fold.state, job.user_id, job.kind, slot.pool, job.quality, measured)
            self._advance(job, settled["artefacts"])
            return
        refunded = outcome == "failed" and error_class in REFUNDED
        self._fold.returned(job, 0.0 if refunded else settled["gpu_seconds"])
        if outcome == CANCELED or is_final_failure(error_class, job.attempt, job.max_attempts):
            self._fold.forget(job)  # the worker's transaction wrote the job's end
        else:
            self._try_again(job, self._delay_ms(job, error_class, settled["retry_after_seconds"]))

    def _advance(self, job: Job, artefacts: list[dict[str, Any]]) -> None:
        """A stage is done: the next one is ready, or the job is at its end."""
        stages = PIPELINES[job.pipeline_id].stages
        if job.stage_index + 1 == len(stages):
            waited, total = (job.first_at - job.arrived_at) / 1000, (self._fold.now - job.arrived_at) / 1000
            self._fold.state.calibration.note_end(job.lane, job.expected, waited, total)
            self._fold.forget(job)
            return
        job.artefacts = (*job.artefacts, *artefacts)
        job.stage_index += 1
        job.attempt = 0
        job.kind = self._kind(job)
        self._wait(job)

    def _delay_ms(self, job: Job, error_class: str, retry_after_seconds: float | None) -> int:
        """How long the stage waits for its next attempt; not at all when the job shall end."""
        if job.stop_class is not None:
            return 0
        return retries.delay_ms(
            self._fold.policy.retry(job.stage),
            error_class,
            job.attempt,
            f"{job.job_id}/{job.stage}/{job.attempt}",
            retry_after_seconds,
        )

    def _try_again(self, job: Job, delay_ms: int) -> None:
        job.kind = self._kind(job)
        if delay_ms:
            job.due_at = self._fold.now + delay_ms
            self._fold.timers.push(job.due_at, (job.job_id, RETRY))
        else:
            self._wait(job)

    def _wait(self, job: Job) -> None:
        """The job waits for its next task, unless it shall end: then nobody else will say so."""
        job.ready_at = self._fold.now
        if job.stop_class is not None:
            self.end(job, Transition.CANCELED, job.stop_class, job.stop_reason)
        elif not job.paused:
            self._fold.enqueue(job)

    def lost(self, job: Job, slot: Slot) -> None:
        """The slot died with the job's task: our failure, not the user's cost. The slot is out of the books already."""
        fold = self._fold
        fold.returned(job, 0.0)
        final = is_final_failure(LOST, job.attempt, job.max_attempts)
        delay_ms = 0 if final else self._delay_ms(job, LOST, None)
        fold.tell(
            job,
            Transition.STAGE_LOST,
            slot=slot.slot,
            epoch=slot.epoch,
            pool=slot.pool,
            resource_class=slot.resource_class,
            error_class=LOST,
            error_message="the worker was lost",
            due_at=fold.now + delay_ms if delay_ms else None,
        )
        if not final:
            self._try_again(job, delay_ms)
        elif job.stop_class is not None:
            self.end(job, Transition.CANCELED, job.stop_class, job.stop_reason)
        else:
            message = f"the worker was lost {job.attempt} times while it ran this stage"
            fold.decisions.append(dead_letter(job, error_class=LOST, message=message, at=fold.now))
            self.end(job, Transition.FAILED, LOST, message)

    def _note(self, job: Job, settled: Mapping[str, Any]) -> None:
        """Counts the attempt for its arm, and lets the guard look at it."""
        name = job.kind[: job.kind.rindex("@")]
        routed = self._fold.state.routing.get(name)
        if routed is None or job.wanted_version is not None:
            return
        version, outcome = job.version, settled["outcome"]
        routed.note(version, outcome=outcome, error_class=settled["error_class"], run_seconds=settled["run_seconds"])
        stats = routed.arms.get(version)
        if stats is None or (outcome == "succeeded" and stats.tasks % _GUARD_EVERY):
            return
        found = routing.verdict(routed.rule, routed.arms)
        if found is None:
            return
        rule = routing.rolled_back(
            routed.rule, version=found.model_version, by=routing.GUARD, reason=found.reason, at=self._fold.now
        )
        event = routing.routing_event(routed.rule, rule, domain=self._fold.domain)
        self._fold.decisions += [Route(rule=rule), Platform(event=event)]
        self.route(rule)

    def route(self, rule: Mapping[str, Any]) -> None:
        """A routing rule was changed, which its writer has told; older ones than the one in force change nothing. Tasks
        that wait for an arm which gets nothing any more are routed anew at once; the others stay where they are."""
        fold, state = self._fold, self._fold.state
        name = rule["name"]
        accepted = routing.accept(state.routing.get(name), rule)
        if accepted is None:
            return
        state.routing[name] = accepted
        live = {f"{name}@{arm['model_version']}" for arm in rule["arms"] if arm["weight"] > 0}
        for job in state.jobs.values():
            if job.slot is None and job.wanted_version is None and job.kind not in live:
                if job.kind[: job.kind.rindex("@")] != name:
                    continue
                waits = fold.queue.task(job.job_id) is not None
                if waits:
                    fold.withdraw(job)
                job.kind = self._kind(job)
                if waits:
                    fold.enqueue(job)

    # ---- they end -----------------------------------------------------------------------------------------------

    def stop(self, job: Job, error_class: str, reason: str) -> None:
        """The job shall end: at once if it waits, by its worker if it runs. Only the first reason counts."""
        if job.stop_class is not None:
            return
        if job.slot is None:
            self.end(job, Transition.CANCELED, error_class, reason)
            return
        job.stop_class, job.stop_reason = error_class, reason
        self._fold.decisions.append(
            StopWork(slot=job.slot, epoch=job.epoch, job_id=job.job_id, stage=job.stage, attempt=job.attempt)
        )

    def end(self, job: Job, transition: Transition, error_class: str, message: str) -> None:
        """The scheduler itself ends a job that no slot holds."""
        self._fold.withdraw(job)
        self._fold.tell(job, transition, error_class=error_class, error_message=message)
        self._fold.forget(job)

    def due(self, job_id: str, name: str) -> None:
        """A timer of the job went off."""
        job = self._fold.state.jobs[job_id]
        if name == RETRY:
            job.due_at = 0
            self._wait(job)
        elif name == START:
            self.end(job, Transition.ABORTED, START_DEADLINE, "start_within_seconds: no stage had started by then")
        elif job.first_at:
            self.stop(job, FINISH_DEADLINE, "finish_within_seconds: the job was not done by then")
        else:
            self.end(job, Transition.ABORTED, FINISH_DEADLINE, "finish_within_seconds: the job was not done by then")


@lru_cache(maxsize=4096)
def _kind_of(pipeline_id: str, stage_index: int, version: str) -> str:
    """One object for equal kinds: many jobs have each."""
    return intern(kind(pipeline_id, PIPELINES[pipeline_id].stages[stage_index].name, version))


def early_key(job_id: str, user_id: str) -> str:
    """Names a cancel that comes before its job; a stranger's does not stand in the way of the user's own."""
    return f"{job_id} {user_id}"


def _stage_index(pipeline: Pipeline | None, stage: str) -> int | None:
    if pipeline is None:
        return None
    return next((index for index, spec in enumerate(pipeline.stages) if spec.name == stage), None)


def _runs(job: Job, settled: Mapping[str, Any]) -> bool:
    here = (job.slot, job.epoch, job.attempt, job.stage)
    return here == (settled["slot"], settled["epoch"], settled["attempt"], settled["stage"])
