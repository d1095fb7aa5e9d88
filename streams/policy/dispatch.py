"""Which waiting task goes to which free place.

First the slots of pools that put a lane before all others take that lane's tasks. Then the lane with the least start
tag goes, in it the task with the least (start tag, priority, arrival) of those that some free place can run. So a free
place stays free only while no task in the queue can run on it: of another kind or version, of a lane that its pool
does not serve or keeps places from, or of a user at the cap.

Affinity: the task goes to a slot that has its model warm if one is free. If none is, and the slot that it would get has
another model warm, the fairest task of that kind goes first, provided that its start tag is at most
`affinity_gpu_seconds` A behind, and that less than A GPU-seconds went before the same fairest task this way already.
So two backlogged users of a lane differ in cost / weight by at most (D + 1)(c_f / w_f + c_g / w_g) + A, and a task is
passed for less than A + c_max GPU-seconds: nobody starves.
"""

from math import inf

from schemas.events import dispatch_id
from schemas.pipelines import PIPELINES, TEXTURE_SIZES
from streams.policy import load
from streams.policy.costs import estimate, estimate_for
from streams.policy.decisions import Dispatch
from streams.policy.fairqueue import Head
from streams.policy.fold import START, Fold
from streams.policy.slots import Shape, Slots
from streams.policy.state import Job, Slot


class Dispatcher:
    """Gives free places to waiting tasks."""

    def __init__(self, fold: Fold, slots: Slots) -> None:
        self._fold = fold
        self._slots = slots

    def run(self) -> None:
        """Until no free place can run anything that waits."""
        while self._slots.places and len(self._fold.queue) and self._next():
            pass

    def _next(self) -> bool:
        slots = self._slots
        shapes = slots.open_shapes()
        for lane in slots.first_lanes():
            first = [shape for shape in shapes if shape.pool.first == lane]
            if first and self._serve(lane, first):
                return True
        for lane in self._fold.queue.lanes_by_tag():
            if self._serve(lane, [shape for shape in shapes if slots.admits(shape, lane)]):
                return True
        return False

    def _serve(self, lane: str, shapes: list[Shape]) -> bool:
        """The lane's fairest task that one of the shapes can run goes; False when there is none."""
        found = self._fairest(lane, shapes)
        if found is None:
            return False
        head, kind = found
        able = [shape for shape in shapes if shape.runs(kind)] if len(shapes) > 1 else shapes
        slot = self._slots.best(able, lane, kind)
        if slot.warm and slot.warm != kind:
            passing = self._passing(lane, slot.warm, head)
            if passing is not None:
                head, kind = passing, slot.warm
        self._start(slot, lane, kind, head)
        return True

    def _fairest(self, lane: str, shapes: list[Shape]) -> tuple[Head, str] | None:
        best: tuple[Head, str] | None = None
        worst = inf
        queue = self._fold.queue
        for kind in queue.kinds(lane):
            for shape in shapes:
                if shape.runs(kind):
                    break
            else:
                continue
            head = queue.peek(lane, kind, worst)
            if head is not None and (best is None or head < best[0]):
                best = head, kind
                worst = head.tag
        return best

    def _passing(self, lane: str, kind: str, fairest: Head) -> Head | None:
        """The task of a warm kind that may go before the fairest one; it is counted as gone."""
        state = self._fold.state
        slack = state.policy.affinity_gpu_seconds
        waiting = state.jobs[fairest.job_id]
        if waiting.passed >= slack:
            return None
        warm = self._fold.queue.peek(lane, kind)
        if warm is None or warm.tag > fairest.tag + slack:
            return None
        if warm.user_id == fairest.user_id and warm.priority > fairest.priority:
            return None
        waiting.passed += estimate(state, kind)
        return warm

    def _start(self, slot: Slot, lane: str, kind: str, head: Head) -> None:
        fold, state = self._fold, self._fold.state
        job = state.jobs[head.job_id]
        self._degrade(job)
        cost = estimate_for(state, job.user_id, kind, slot.pool, job.quality)
        _, job.charged = fold.queue.pop(lane, kind, cost, head.user_id)
        job.estimate = cost
        job.attempt += 1
        job.passed = 0.0
        stage = job.stage
        job.max_attempts = state.policy.retry(stage).max_attempts
        job.slot, job.epoch, job.dispatched_at = slot.slot, slot.epoch, state.now
        if not job.first_at:
            job.first_at = state.now
            state.calibration.note_start(lane, job.expected, (state.now - job.arrived_at) / 1000)
            if job.start_by is not None:
                fold.timers.cancel((job.job_id, START))
        self._slots.take(slot, job.job_id, job.attempt, kind)
        state.calibration.note_dispatch(lane, cost)
        fold.popped(job)
        fold.decisions.append(Dispatch(slot=slot.slot, epoch=slot.epoch, item=_work_item(job, stage)))

    def _degrade(self, job: Job) -> None:
        """Under load a job gets less, and keeps it: its quality is only lowered before its first stage."""
        state = self._fold.state
        if not state.level.level:
            return
        less = load.degrade(
            state.policy.load,
            state.level.level if not job.first_at else min(state.level.level, 1),
            tier=self._fold.tenant(job.user_id).tier,
            quality=job.quality,
            texture_size=job.texture_size,
            default_sizes=TEXTURE_SIZES,
        )
        if less.adjustments:
            job.quality, job.texture_size = less.quality, less.texture_size
            job.adjustments = (*job.adjustments, *less.adjustments)


def _work_item(job: Job, stage: str) -> dict[str, object]:
    return {
        "dispatch_id": dispatch_id(job.job_id, stage, job.attempt),
        "job_id": job.job_id,
        "user_id": job.user_id,
        "stage": stage,
        "stage_index": job.stage_index,
        "stage_count": len(PIPELINES[job.pipeline_id].stages),
        "attempt": job.attempt,
        "max_attempts": job.max_attempts,
        "pipeline_id": job.pipeline_id,
        "model_version": job.version,
        "artefacts": list(job.artefacts),
        "traceparent": job.traceparent,
        "created_at": job.created_at,
        "ready_at": job.ready_at,
        "dispatched_at": job.dispatched_at,
        "quality": job.quality,
        "texture_size": job.texture_size,
        "lane": job.lane,
        "tier": job.tier,
        "priority": job.priority,
        "adjustments": list(job.adjustments),
        "retry_of": job.retry_of,
        "request": job.request,
    }
