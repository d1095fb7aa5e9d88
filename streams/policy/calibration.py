"""How well predicted times came true, how fast each lane is served, and where its work stands: what an ETA needs.

The fold notes what it predicted when a job arrived, and how it turned out. Each lane keeps its newest scores; their
quantiles go out with the load report, and schemas/eta.py applies them.

A lane's rate is what its weight gives it of the live capacity beside the other lanes (water-filling: lanes without a
backlog take no more than they were served lately, the rest is shared out), times a measured efficiency: what was taken
from the queue while the lane had a backlog, of what the same rule had offered it. So a rate follows a lost slot or
a lane that falls idle at once, and pools that serve only some lanes, and wrong estimates of costs, by and by.
"""

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from schemas.eta import floor_seconds, gpu_seconds_before

MOST_BINS: Final = 64
_BIN_GROWTH: Final = 1.2
WINDOW: Final = 256  # newest scores that count
_MEMORY_SECONDS: Final = 30.0  # of rates and efficiencies
_PRIOR_SECONDS: Final = 10.0  # for how long the offered rate is trusted before a measured one counts as much
_REST_DECAY: Final = 0.1
_LEAST_EFFICIENCY: Final = 0.01
_MOST_EFFICIENCY: Final = 4.0
# Scores of long waits come late, so while load rises the window is kinder than the truth: p90 is taken a little higher.
_P90: Final = 0.92
_ENOUGH: Final = 40  # scores; while there are fewer, these stand for jobs that nobody has measured yet
_PRIOR_SCORES: Final = (0.5, 0.7, 0.8, 0.9, 1.0, 1.0, 1.1, 1.3, 1.5, 2.0)


class Flow(NamedTuple):
    """What waits of one user in a lane. start_tag: of the next task; step: how far one task moves it; tasks: how many
    wait; gpu_seconds: estimated cost of one, best with all stages that the job still has."""

    start_tag: float
    step: float
    tasks: int
    gpu_seconds: float


class Histogram(msgspec.Struct, kw_only=True):
    """Work by start tag. edges: rising; gpu_seconds: of the bins between them; emptied: how many first ones are empty.
    The first bin ends at the lane's virtual time: what stands in it goes before every newcomer."""

    edges: list[float] = []
    gpu_seconds: list[float] = []
    emptied: int = 0

    def before(self, tag: float) -> float:
        """The work with start tags up to `tag`."""
        return gpu_seconds_before(self.edges, self.gpu_seconds, tag)

    def add(self, tag: float, gpu_seconds: float) -> None:
        """One more task: into the bin of its tag, or into a new last one."""
        if not self.gpu_seconds:
            self.edges, self.gpu_seconds = [tag, tag], [gpu_seconds]
            return
        index = max(0, bisect_left(self.edges, tag) - 1)
        self.emptied = min(self.emptied, index, MOST_BINS - 1)
        if index < len(self.gpu_seconds):
            self.gpu_seconds[index] += gpu_seconds
        elif len(self.gpu_seconds) < MOST_BINS:
            self.edges.append(tag)
            self.gpu_seconds.append(gpu_seconds)
        else:
            self.edges[-1] = tag
            self.gpu_seconds[-1] += gpu_seconds

    def take(self, gpu_seconds: float) -> None:
        """Work was dispatched: it stood first."""
        while self.emptied < len(self.gpu_seconds):
            held = self.gpu_seconds[self.emptied]
            if held > gpu_seconds:
                self.gpu_seconds[self.emptied] = held - gpu_seconds
                return
            self.gpu_seconds[self.emptied] = 0.0
            gpu_seconds -= held
            self.emptied += 1


class Expectation(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What was predicted when a job arrived, to be kept with it: seconds to its start and to its end by the model, and
    the floor of its scores."""

    wait_seconds: float
    total_seconds: float
    floor_seconds: float


class Scores(msgspec.Struct, kw_only=True):
    """The newest scores, in a ring. oldest: index of the next one to be replaced."""

    values: list[float] = []
    oldest: int = 0

    def add(self, score: float) -> None:
        """Takes in a score; the oldest one goes when there are too many."""
        if len(self.values) < WINDOW:
            self.values.append(score)
            return
        self.values[self.oldest] = score
        self.oldest = (self.oldest + 1) % WINDOW

    def quantiles(self) -> tuple[float, float]:
        """Median and 90th percentile, the latter with the allowance."""
        known = sorted(self.values if len(self.values) >= _ENOUGH else [*self.values, *_PRIOR_SCORES])
        last = len(known) - 1
        return known[len(known) // 2], known[min(last, math.ceil(_P90 * (len(known) + 1)) - 1)]


class LaneHistory(msgspec.Struct, kw_only=True):
    """One lane.

    taken: estimated cost of what was dispatched since the last look; demand: decayed mean of it by second;
    offered_seconds: decayed time with a backlog; got_seconds: in how many of them the offered rate would have taken
    what was taken; rate: GPU-seconds a second that the lane has, or would have; rest_seconds: decayed mean from a job's
    first start to its end, None before the first.
    """

    wait_scores: Scores = msgspec.field(default_factory=Scores)
    total_scores: Scores = msgspec.field(default_factory=Scores)
    histogram: Histogram = msgspec.field(default_factory=Histogram)
    taken: float = 0.0
    demand: float = 0.0
    got_seconds: float = _PRIOR_SECONDS
    offered_seconds: float = _PRIOR_SECONDS
    rate: float = 0.0
    rest_seconds: float | None = None
    had_backlog: bool = False

    @property
    def efficiency(self) -> float:
        """What the lane took of what it was offered."""
        return min(_MOST_EFFICIENCY, max(_LEAST_EFFICIENCY, self.got_seconds / self.offered_seconds))


class Sight(NamedTuple):
    """A lane at a load report. weight: in the upper level; queued_tasks: that may be dispatched; histogram: of them."""

    weight: float
    queued_tasks: int
    histogram: Histogram


class Calibration(msgspec.Struct, kw_only=True):
    """Everything an ETA needs besides the queue; part of the scheduler's state. capacity: tasks that the live slots
    take at once, at the last look; looked_ms: when that was."""

    lanes: dict[str, LaneHistory] = {}
    capacity: int = 0
    looked_ms: int | None = None

    def note_arrival(
        self, lane: str, tag: float, gpu_seconds: float, *, least_wait_seconds: float = 0.0
    ) -> Expectation | None:
        """A job came and its first task waits with this start tag; None while nothing is known of the lane.

        gpu_seconds: estimated cost of the whole job; least_wait_seconds: as in schemas.eta.predict.
        """
        history = self._lane(lane)
        ahead = history.histogram.before(tag)
        history.histogram.add(tag, gpu_seconds)
        if history.rate <= 0:
            return None
        wait = max(least_wait_seconds, ahead / history.rate)
        rest = gpu_seconds if history.rest_seconds is None else history.rest_seconds
        return Expectation(
            wait_seconds=wait, total_seconds=wait + rest, floor_seconds=floor_seconds(rest, self.capacity)
        )

    def note_dispatch(self, lane: str, gpu_seconds: float) -> None:
        """A task left the queue; gpu_seconds: its estimated cost."""
        history = self._lane(lane)
        history.taken += gpu_seconds
        history.histogram.take(gpu_seconds)

    def note_start(self, lane: str, expected: Expectation | None, waited_seconds: float) -> None:
        """A job's first task was dispatched."""
        if expected is not None:
            floor = expected.floor_seconds
            self._lane(lane).wait_scores.add((waited_seconds + floor) / (expected.wait_seconds + floor))

    def note_end(self, lane: str, expected: Expectation | None, waited_seconds: float, total_seconds: float) -> None:
        """A job succeeded, so long after it came."""
        history = self._lane(lane)
        rest = total_seconds - waited_seconds
        known = rest if history.rest_seconds is None else history.rest_seconds
        history.rest_seconds = known + _REST_DECAY * (rest - known)
        if expected is not None:
            floor = expected.floor_seconds
            history.total_scores.add((total_seconds + floor) / (expected.total_seconds + floor))

    def look(self, now_ms: int, capacity: int, sights: Mapping[str, Sight]) -> None:
        """A load report is due: takes in where the work stands now, and what was done since the last one."""
        elapsed = 0.0 if self.looked_ms is None else max(0.0, (now_ms - self.looked_ms) / 1000)
        self.looked_ms, self.capacity = now_ms, capacity
        keep = _MEMORY_SECONDS / (_MEMORY_SECONDS + elapsed)
        for lane, sight in sights.items():
            history = self._lane(lane)
            if elapsed > 0:
                history.demand = keep * history.demand + (1 - keep) * history.taken / elapsed
                if history.had_backlog and sight.queued_tasks:
                    offered = self._offer(lane, sights)
                    history.got_seconds *= keep
                    history.offered_seconds *= keep
                    if offered > 0:
                        history.got_seconds += history.taken / offered
                        history.offered_seconds += elapsed
                history.taken = 0.0
            history.histogram = sight.histogram
        for lane, sight in sights.items():
            history = self._lane(lane)
            history.had_backlog = sight.queued_tasks > 0
            history.rate = history.efficiency * self._offer(lane, sights)

    def _offer(self, lane: str, sights: Mapping[str, Sight]) -> float:
        """Capacity by water-filling, for `lane` as if it had a backlog."""
        wants = {
            name: math.inf if name == lane or sight.queued_tasks else self._lane(name).demand
            for name, sight in sights.items()
        }
        left, open_lanes = float(self.capacity), dict(wants)
        while open_lanes:
            level = left / sum(sights[name].weight for name in open_lanes)
            content = [name for name, want in open_lanes.items() if want < level * sights[name].weight]
            if not content:
                return level * sights[lane].weight
            for name in content:
                left -= open_lanes.pop(name)
        return 0.0

    def figures(self, lane: str) -> dict[str, Any]:
        """The lane's part of a load report, as far as it comes from here."""
        history = self._lane(lane)
        wait_p50, wait_p90 = history.wait_scores.quantiles()
        total_p50, total_p90 = history.total_scores.quantiles()
        return {
            "gpu_seconds_per_second": history.rate,
            "tag_edges": list(history.histogram.edges),
            "tag_gpu_seconds": list(history.histogram.gpu_seconds),
            "rest_seconds": history.rest_seconds or 0.0,
            "wait_ratio_p50": wait_p50,
            "wait_ratio_p90": wait_p90,
            "total_ratio_p50": total_p50,
            "total_ratio_p90": total_p90,
        }

    def _lane(self, lane: str) -> LaneHistory:
        history = self.lanes.get(lane)
        if history is None:
            history = self.lanes[lane] = LaneHistory()
        return history


def build_histogram(virtual_time: float, flows: Iterable[Flow], *, bins: int = MOST_BINS) -> Histogram:
    """Work by start tag: one bin up to the virtual time, and bins beyond it of which each holds a fifth more than the
    one before, so that the work ahead of any tag is known with the same relative precision.

    A user's n-th task has the tag start_tag + n x step, the first one n = 0; between its first and its last task a
    user's work is taken as spread evenly. O(n log n) in the number of flows.
    """
    due = 0.0  # at or before the virtual time
    changes: list[tuple[float, float]] = []  # (tag, change of the density of work)
    total, least = 0.0, virtual_time
    for start_tag, step, tasks, gpu_seconds in flows:
        least = min(least, start_tag)
        past = tasks if step <= 0 else min(tasks, max(0, math.floor((virtual_time - start_tag) / step) + 1))
        if step <= 0 and start_tag > virtual_time:
            past = 0
        due += past * gpu_seconds
        if past == tasks:
            continue
        beyond = (tasks - past) * gpu_seconds
        width = max(step, 1e-9) * (tasks - past)
        begin = max(virtual_time, start_tag + (past - 0.5) * step)
        changes.append((begin, beyond / width))
        changes.append((begin + width, -beyond / width))
        total += beyond
    histogram = Histogram(edges=[least, virtual_time], gpu_seconds=[due])
    if total > 0:
        changes.sort()
        _cut(histogram, changes, total * (_BIN_GROWTH - 1) / (_BIN_GROWTH ** (bins - 1) - 1), bins)
    return histogram


def _cut(histogram: Histogram, changes: list[tuple[float, float]], share: float, bins: int) -> None:
    """Appends bins, the first of which holds `share`; the last one takes what rounding left."""
    density, filled, last = 0.0, 0.0, changes[0][0]
    for tag, change in changes:
        while density > 0 and filled + density * (tag - last) >= share and len(histogram.gpu_seconds) < bins - 1:
            last += (share - filled) / density
            histogram.edges.append(last)
            histogram.gpu_seconds.append(share)
            filled, share = 0.0, share * _BIN_GROWTH
        filled += max(0.0, density) * (tag - last)
        density, last = density + change, tag
    if filled > 0:
        histogram.edges.append(last)
        histogram.gpu_seconds.append(filled)
