"""The load report, once a second of the inbox's time: how the domain stands, for users' ETAs and for the load level.

What needs a look at every user with a backlog is done less often when there are many of them, and most of those with
little backlog are represented by a sample, so that reports take a few hundredths of the time at most.
"""

import zlib
from collections import Counter
from collections.abc import Iterable
from itertools import takewhile
from typing import Any, Final

from streams.policy import load
from streams.policy.calibration import Flow, Histogram, Sight, build_histogram
from streams.policy.costs import rest_of_job
from streams.policy.decisions import Platform, Report
from streams.policy.fold import Fold
from streams.policy.slots import Slots

EVERY_MS: Final = 1_000
BACKLOG_USERS: Final = 1_000
# Users are gone through at this rate on average, and of those that the report does not name about so many closely.
_USERS_PER_SECOND: Final = 20_000
_SAMPLE: Final = 4_096
_FORGET_EVERY_MS: Final = 60_000
# What a user's tasks cost is known for so long after the last one.
_HABITS_MS: Final = 3_600_000


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
        users = sum(self._fold.queue.users_in(lane) for lane in self._fold.queue.lanes)
        due = state.now - state.reported.swept_at >= 1000 * users / _USERS_PER_SECOND
        self._look(self._sweep() if due else {})
        self._follow_level()
        self._fold.decisions.append(Report(load=self._load()))

    def _forget(self) -> None:
        """Ended jobs and early cancels that are long past, and flows that would begin at the virtual time anyway."""
        state = self._fold.state
        horizon = state.now - state.policy.remember_ms
        for job_id in _until(state.finished.items(), horizon):
            del state.finished[job_id]
        for key in _until(((key, early.at) for key, early in state.early_cancels.items()), horizon):
            del state.early_cancels[key]
        unseen = state.now - min(_HABITS_MS, state.policy.remember_ms)
        for user_id in _until(((user_id, habit.seen_at) for user_id, habit in state.habits.items()), unseen):
            del state.habits[user_id]
        if state.now - state.forgot_at >= _FORGET_EVERY_MS:
            state.forgot_at = state.now
            self._fold.queue.forget(self._fold.running)
            self._fold.forget_caps()

    # ---- what is seen -------------------------------------------------------------------------------------------

    def _sweep(self) -> dict[str, Histogram]:
        """Goes through the users with a backlog: histograms of the lanes, and the rows of the report."""
        queue, reported = self._fold.queue, self._fold.state.reported
        reported.swept_at = self._fold.now
        histograms: dict[str, Histogram] = {}
        rows: list[dict[str, Any]] = []
        for lane in queue.lanes:
            step, rest = self._mean_costs(lane)
            named, others = _named_and_others(list(queue.users_waiting(lane)))
            rows += [
                {
                    "user_id": user_id,
                    "start_tag": queue.tag(lane, user_id),
                    "step": step / queue.weight(user_id),
                    "queued_tasks": count,
                    "lane": lane,
                    "places": self._fold.places(user_id, lane),
                    "seconds_each": rest / max(1, self._fold.cap(user_id)),
                }
                for user_id, count in named
            ]
            each = -(-len(others) // _SAMPLE)  # stands for so many
            sample = [user for user in others if zlib.crc32(user[0].encode()) % each == 0]
            flows = [self._flow(lane, user, step, rest) for user in named if user[0] not in queue.parked]
            flows += [self._flow(lane, user, step, rest * each) for user in sample if user[0] not in queue.parked]
            histograms[lane] = build_histogram(queue.lane_virtual_time(lane), sorted(flows))
        rows.sort(key=lambda row: (-row["queued_tasks"], row["user_id"], row["lane"]))
        reported.backlog = rows[:BACKLOG_USERS]
        return histograms

    def _flow(self, lane: str, user: tuple[str, int], step: float, gpu_seconds: float) -> Flow:
        queue = self._fold.queue
        return Flow(queue.tag(lane, user[0]), step / queue.weight(user[0]), user[1], gpu_seconds)

    def _mean_costs(self, lane: str) -> tuple[float, float]:
        """Estimated GPU-seconds of a lane's tasks in the queue, in the mean: of one, and with the stages after it."""
        queue, state = self._fold.queue, self._fold.state
        tasks = queue.waiting_in(lane)
        if not tasks:
            return 0.0, 0.0
        rest = sum(rest_of_job(state, kind) * count for kind, count in sorted(queue.kinds(lane).items()))
        return self._fold.queued_gpu_seconds(lane) / tasks, rest / tasks

    def _look(self, histograms: dict[str, Histogram]) -> None:
        """The calibration of ETAs takes in where the work stands."""
        queue, state = self._fold.queue, self._fold.state
        sights = {}
        for lane in queue.lanes:
            known = state.calibration.lanes.get(lane)
            histogram = histograms.get(lane) or (known.histogram if known is not None else Histogram())
            sights[lane] = Sight(state.policy.lanes[lane], self._offered(lane), histogram)
        state.calibration.look(state.now, self._slots.capacity(), sights)

    # ---- what is said -------------------------------------------------------------------------------------------

    def _offered(self, lane: str) -> int:
        """Tasks of users below their cap: what only its own user's cap holds back is no load."""
        queue = self._fold.queue
        return queue.waiting_in(lane) - sum(queue.waiting_in(lane, user_id) for user_id in queue.parked)

    def _wait_seconds(self) -> float:
        """Waiting GPU-seconds over live capacity; the stages that follow count too, since they go before newer jobs."""
        queue, state = self._fold.queue, self._fold.state
        waiting = sum(self._offered(lane) * self._mean_costs(lane)[1] for lane in queue.lanes)
        return load.predicted_wait_seconds(state.level, waiting, self._slots.capacity())

    def _oldest_seconds(self) -> float:
        queue = self._fold.queue
        return max(self._fold.oldest_age_seconds(lane) for lane in queue.lanes)

    def _follow_level(self) -> None:
        state = self._fold.state
        wait, before = self._wait_seconds(), state.level
        # While every task that waits belongs to a user at the cap, its age says nothing of the load.
        age = self._oldest_seconds() if any(map(self._offered, self._fold.queue.lanes)) else 0.0
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


def _until(times: Iterable[tuple[str, int]], horizon: int) -> list[str]:
    """Names of what happened up to the horizon, of a list that begins with the oldest."""
    return [name for name, _ in takewhile(lambda item: item[1] <= horizon, times)]


def _named_and_others(users: list[tuple[str, int]]) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """Users of a lane by their backlog: those that the report names, and the rest. Users with equal backlog stay
    together, so that the order in which they came does not matter."""
    left, least = BACKLOG_USERS, 0
    for count, number in sorted(Counter(count for _, count in users).items(), reverse=True):
        left -= number
        if left < 0:
            least = count
            break
    return [user for user in users if user[1] > least], [user for user in users if user[1] <= least]
