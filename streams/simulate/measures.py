"""Measures of fairness: how far two users' service drifts apart, and how even the shares are.

Knows nothing of the scheduler: it is told who waits and who is served, by a simulation or from a real run's events.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


def jain(values: Sequence[float]) -> float:
    """Jain's index (sum x)² / (n sum x²): 1 when all are equal, 1/n when one has everything; 1 of nothing."""
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 1.0


def quantile(ordered: Sequence[float], share: float) -> float | None:
    """The value below which that share lies, of values in order; None of nothing."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None


@dataclass(frozen=True, kw_only=True)
class Fairness:
    """lag: the largest difference of service / weight of two users over any interval in which both had tasks waiting,
    GPU-seconds per unit of weight; lag_over_bound: the largest ratio of such a difference to that pair's SFQ(D) bound,
    (D + 1)(c_f / w_f + c_g / w_g), which affinity widens by affinity / lane weight terms of its own; pair: where;
    jain: of service / weight while every user had tasks waiting; together_seconds: how long that was; tasks: served."""

    lag: float
    lag_over_bound: float
    pair: tuple[str, str] | None
    jain: float | None
    together_seconds: float
    tasks: int


class FairnessMeter:
    """Told in order of time: `ready`, `start` and `withdraw`. A user is backlogged while a task of hers waits.

    weights: of all users; in_flight: D, tasks that run at once. A task's cost is what it came to, in GPU-seconds; it
    counts when the task is started.
    """

    def __init__(self, weights: Mapping[str, float], in_flight: int) -> None:
        n = len(weights)
        self._users = list(weights)
        self._index = {user_id: index for index, user_id in enumerate(self._users)}
        self._weights = np.array(list(weights.values()), dtype=float)
        self._in_flight = in_flight
        self._waiting = [0] * n
        self._service = np.zeros(n)  # / weight
        self._greatest = np.zeros(n)  # cost / weight
        self._backlogged = np.zeros(n, dtype=bool)
        self._low, self._high, self._widest = np.zeros((n, n)), np.zeros((n, n)), np.zeros((n, n))
        self._together: tuple[float, np.ndarray] | None = None
        self._longest: tuple[float, list[float]] = (0.0, [])
        self._tasks = 0

    def ready(self, user_id: str, at_seconds: float) -> None:
        """A task of the user begins to wait."""
        i = self._index[user_id]
        self._waiting[i] += 1
        if self._waiting[i] > 1:
            return
        self._backlogged[i] = True
        apart = self._service[i] - self._service
        self._low[i], self._high[i] = apart, apart
        self._low[:, i], self._high[:, i] = -apart, -apart
        if self._backlogged.all():
            self._together = (at_seconds, self._service.copy())

    def start(self, user_id: str, cost_gpu_seconds: float, at_seconds: float) -> None:
        """A waiting task of the user is served."""
        i = self._index[user_id]
        cost = cost_gpu_seconds / self._weights[i]
        self._service[i] += cost
        self._greatest[i] = max(self._greatest[i], cost)
        self._tasks += 1
        apart = self._service[i] - self._service
        both = self._backlogged if self._backlogged[i] else np.zeros_like(self._backlogged)
        low, high = np.minimum(self._low[i], apart), np.maximum(self._high[i], apart)
        self._low[i], self._high[i] = low, high
        self._low[:, i], self._high[:, i] = -high, -low
        wide = np.where(both, np.maximum(self._widest[i], high - low), self._widest[i])
        wide[i] = 0.0
        self._widest[i], self._widest[:, i] = wide, wide
        self._leave(i, at_seconds)

    def withdraw(self, user_id: str, at_seconds: float) -> None:
        """A waiting task of the user is gone, unserved."""
        self._leave(self._index[user_id], at_seconds)

    def _leave(self, i: int, at_seconds: float) -> None:
        self._waiting[i] -= 1
        if self._waiting[i] > 0:
            return
        self._close(at_seconds)
        self._backlogged[i] = False

    def _close(self, at_seconds: float) -> None:
        """The time in which everybody waited ends; the longest such time counts."""
        if self._together is not None:
            began, before = self._together
            if at_seconds - began > self._longest[0]:
                self._longest = (at_seconds - began, list(self._service - before))
            self._together = None

    def figures(self, at_seconds: float) -> Fairness:
        """What was measured until now."""
        self._close(at_seconds)
        bounds = (self._in_flight + 1) * (self._greatest[:, None] + self._greatest[None, :])
        ratios = np.divide(self._widest, bounds, out=np.zeros_like(bounds), where=bounds > 0)
        place = np.unravel_index(int(np.argmax(ratios)), ratios.shape) if ratios.size else None
        worst = float(ratios[place]) if place is not None else 0.0
        seconds, service = self._longest
        return Fairness(
            lag=float(self._widest.max(initial=0.0)),
            lag_over_bound=worst,
            pair=(self._users[place[0]], self._users[place[1]]) if place is not None and worst > 0 else None,
            jain=jain(service) if service else None,
            together_seconds=seconds,
            tasks=self._tasks,
        )
