"""The load report, once a second of the inbox's time: how the domain stands, for users' ETAs and for the load level.

What needs a look at every user with a backlog is done less often when there are many of them, so that it takes a few
hundredths of the time at most.
"""

import heapq
from typing import Any, Final

from streams.policy import load
from streams.policy.calibration import Flow, Histogram, Sight, build_histogram
from streams.policy.costs import rest_of_job
from streams.policy.decisions import Platform, Report
from streams.policy.fold import Fold
from streams.policy.slots import Slots

EVERY_MS: Final = 1_000
BACKLOG_USERS: Final = 1_000
# A look at one user's backlog takes a few microseconds; so many users are looked at in a second.
_USERS_PER_SECOND: Final = 10_000
_FORGET_EVERY_MS: Final = 60_000


class Reporter:
    """Reports and the load level."""

    def __init__(self, fold: Fold, slots: Slots) -> None:
        self._fold = fold
        self._slots = slots

    def tick(self) -> None:
        """Time has gone on: forgets what is long past, and reports when it is due."""
        state = self._fold.state
        if state.now - state.reported.at < EVERY_MS:
            return
        state.reported.at = state.now
        self._forget()
        users = sum(1 for _ in self._fold.running) + self._users_waiting()
        if state.now - state.reported.swept_at >= 1000 * users / _USERS_PER_SECOND:
            state.reported.swept_at = state.now
            histograms = self._sweep()
        else:
            histograms = {}
        self._look(histograms)
        self._follow_level()
        self._fold.decisions.append(Report(load=self._load()))

    def _users_waiting(self) -> int:
        return sum(self._fold.queue.users_in(lane) for lane in self._fold.queue.lanes)

    def _forget(self) -> None:
        """Ended jobs and early cancels that are long past, and flows that would begin at the virtual time anyway."""
        state = self._fold.state
        horizon = state.now - state.policy.remember_ms
        past = []
        for job_id, at in state.finished.items():  # oldest first
            if at > horizon:
                break
            past.append(job_id)
        for job_id in past:
            del state.finished[job_id]
        for job_id in [job_id for job_id, early in state.early_cancels.items() if early.at <= horizon]:
            del state.early_cancels[job_id]
        if state.now - state.forgot_at >= _FORGET_EVERY_MS:
            state.forgot_at = state.now
            self._fold.queue.forget(self._fold.running)

    # ---- what is seen -------------------------------------------------------------------------------------------

    def _sweep(self) -> dict[str, Histogram]:
        """Goes through the users with a backlog: histograms of the lanes, and the rows of the report."""
        reported = self._fold.state.reported
        rows: list[tuple[int, str, str]] = []
        histograms = {}
        for lane in self._fold.queue.lanes:
            step, rest = self._mean_costs(lane)
            histograms[lane], found = self._sweep_lane(lane, step, rest)
            rows += [(count, user_id, lane) for user_id, count in found]
        rows = heapq.nsmallest(BACKLOG_USERS, rows, key=lambda row: (-row[0], row[1], row[2]))
        reported.backlog = [self._row(*row) for row in rows]
        return histograms

    def _sweep_lane(self, lane: str, step: float, rest: float) -> tuple[Histogram, list[tuple[str, int]]]:
        queue = self._fold.queue
        users = list(queue.users_waiting(lane))
        flows, tasks = [], 0
        for user_id, count in users:
            if not queue.is_parked(user_id):
                flows.append(Flow(queue.tag(lane, user_id), step / queue.weight(user_id), count, rest))
                tasks += count
        self._fold.state.reported.ready[lane] = (tasks, tasks * step)
        flows.sort()
        histogram = build_histogram(queue.lane_virtual_time(lane), flows)
        return histogram, heapq.nsmallest(BACKLOG_USERS, users, key=lambda user: (-user[1], user[0]))

    def _mean_costs(self, lane: str) -> tuple[float, float]:
        """Estimated GPU-seconds of a lane's tasks in the queue, in the mean: of one, and with the stages after it."""
        queue, state = self._fold.queue, self._fold.state
        tasks = queue.waiting_in(lane)
        if not tasks:
            return 0.0, 0.0
        rest = sum(rest_of_job(state, kind) * count for kind, count in sorted(queue.kinds(lane).items()))
        return self._fold.queued_gpu_seconds(lane) / tasks, rest / tasks

    def _row(self, count: int, user_id: str, lane: str) -> dict[str, Any]:
        queue = self._fold.queue
        return {
            "user_id": user_id,
            "start_tag": queue.tag(lane, user_id),
            "step": self._mean_costs(lane)[0] / queue.weight(user_id),
            "queued_tasks": count,
            "lane": lane,
        }

    def _look(self, histograms: dict[str, Histogram]) -> None:
        """The calibration of ETAs takes in where the work stands."""
        queue, state = self._fold.queue, self._fold.state
        sights = {}
        for lane in queue.lanes:
            known = state.calibration.lanes.get(lane)
            histogram = histograms.get(lane) or (known.histogram if known is not None else Histogram())
            ready = min(state.reported.ready.get(lane, (0, 0.0))[0], queue.waiting_in(lane))
            sights[lane] = Sight(state.policy.lanes[lane], ready, histogram)
        state.calibration.look(state.now, self._slots.capacity(), sights)

    # ---- what is said -------------------------------------------------------------------------------------------

    def _wait_seconds(self) -> float:
        """Waiting GPU-seconds over live capacity. Tasks that only their own user's cap holds back are no load."""
        state = self._fold.state
        waiting = sum(seconds for _, seconds in state.reported.ready.values())
        return load.predicted_wait_seconds(state.level, waiting, self._slots.capacity())

    def _oldest_seconds(self) -> float:
        queue = self._fold.queue
        return max(self._fold.oldest_age_seconds(lane) for lane in queue.lanes)

    def _follow_level(self) -> None:
        state = self._fold.state
        wait, before = self._wait_seconds(), state.level
        # While every task that waits belongs to a user at the cap, its age says nothing of the load.
        age = self._oldest_seconds() if any(tasks for tasks, _ in state.reported.ready.values()) else 0.0
        after = load.next_level(
            state.policy.load,
            before,
            wait_seconds=wait,
            oldest_age_seconds=age,
            capacity=self._slots.capacity(),
            now_ms=state.now,
        )
        state.level = after
        if after.level != before.level:
            event = load.level_event(
                state.policy.load,
                before,
                after,
                domain=self._fold.domain,
                wait_seconds=wait,
                oldest_age_seconds=age,
            )
            self._fold.decisions.append(Platform(event=event))

    def _load(self) -> dict[str, Any]:
        fold, state, queue = self._fold, self._fold.state, self._fold.queue
        wait, rules, level = self._wait_seconds(), state.policy.load, state.level.level
        refused = level >= len(rules.levels)
        return {
            "domain": fold.domain,
            "virtual_time": state.clockwork.virtual_time,
            "queued_tasks": len(queue),
            "running_tasks": sum(fold.running_in.values()),
            "live_slots": len(state.slots),
            "queued_gpu_seconds": sum(fold.queued_gpu_seconds(lane) for lane in queue.lanes),
            "backlog": state.reported.backlog,
            "at": state.now,
            "level": level,
            "level_since": state.level.since_ms or None,
            "predicted_wait_seconds": wait,
            "oldest_age_seconds": self._oldest_seconds(),
            "retry_after_seconds": load.retry_after_seconds(rules, state.level, wait),
            "capacity": self._slots.capacity(),
            "lanes": [self._lane_load(lane) for lane in queue.lanes],
            "refused_tiers": list(rules.refuse_tiers) if refused else [],
            "refused_lanes": list(rules.refuse_lanes) if refused else [],
            "policy_digest": state.policy_digest,
        }

    def _lane_load(self, lane: str) -> dict[str, Any]:
        fold = self._fold
        return {
            "lane": lane,
            "weight": fold.policy.lanes[lane],
            "virtual_time": fold.queue.lane_virtual_time(lane),
            "queued_tasks": fold.queue.waiting_in(lane),
            "running_tasks": fold.running_in[lane],
            "queued_gpu_seconds": fold.queued_gpu_seconds(lane),
            "oldest_age_seconds": fold.oldest_age_seconds(lane),
            **fold.state.calibration.figures(lane),
        }
