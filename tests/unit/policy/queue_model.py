"""A queue of jobs with several stages on some slots, ordered by the real fair queue: what predictions are tested on."""

import heapq
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from streams.policy.calibration import Calibration, Expectation, Flow, Histogram, Sight, build_histogram
from streams.policy.fairqueue import Clockwork, FairQueue, Task

LANES = {"interactive": 70.0, "standard": 25.0, "batch": 5.0}


@dataclass
class Job:
    """A job on its way. stages: seconds of each; expected, p90_seconds: what was predicted when it came."""

    job_id: str
    user_id: str
    lane: str
    came: float
    stages: list[float]
    stage: int = 0
    started: float | None = None
    ended: float | None = None
    expected: Expectation | None = None
    wait_p90: float | None = None
    total_p50: float | None = None
    total_p90: float | None = None


@dataclass
class Model:
    """The queue, its slots and its calibration. `slots` may be changed between two steps of `run`."""

    slots: int
    calibration: Calibration = field(default_factory=Calibration)
    mean: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.queue = FairQueue(Clockwork(), LANES)
        self.jobs: dict[str, Job] = {}
        self.ended: list[Job] = []
        self.events: list[tuple[float, int, str, object]] = []
        self.count = 0
        self.running = 0

    def run(self, arrivals: Iterable[Job], until: float) -> None:
        for job in arrivals:
            self._at(job.came, "arrive", job)
        for second in range(int(until)):
            self._at(float(second), "look", None)
        while self.events:
            now, _, kind, what = heapq.heappop(self.events)
            if now > until:
                return
            if kind == "look":
                self._look(now)
            elif kind == "slots":
                assert isinstance(what, int)
                self.slots = what
            elif isinstance(what, Job):
                (self._arrive if kind == "arrive" else self._settle)(now, what)
            self._dispatch(now)

    def change_slots(self, at: float, slots: int) -> None:
        self._at(at, "slots", slots)

    def _at(self, when: float, kind: str, what: object) -> None:
        self.count += 1
        heapq.heappush(self.events, (when, self.count, kind, what))

    def _cost(self, stage: int) -> float:
        return self.mean.get(stage, 1.0)

    def _rest(self, job: Job) -> float:
        return sum(self._cost(stage) for stage in range(job.stage, len(job.stages)))

    def _arrive(self, now: float, job: Job) -> None:
        before = self._waiting(job.lane, job.user_id)
        tag = self.queue.tag(job.lane, job.user_id) + before * self._rest(job)
        tag = max(tag, self.queue.lane_virtual_time(job.lane))
        figures = self.calibration.figures(job.lane)
        job.expected = self.calibration.note_arrival(job.lane, tag, self._rest(job))
        if job.expected is not None:
            floor = job.expected.floor_seconds
            job.wait_p90 = figures["wait_ratio_p90"] * (job.expected.wait_seconds + floor) - floor
            job.total_p50 = figures["total_ratio_p50"] * (job.expected.total_seconds + floor) - floor
            job.total_p90 = figures["total_ratio_p90"] * (job.expected.total_seconds + floor) - floor
        self.jobs[job.job_id] = job
        self._push(job)

    def _waiting(self, lane: str, user_id: str) -> int:
        return dict(self.queue.users_waiting(lane)).get(user_id, 0)

    def _push(self, job: Job) -> None:
        self.queue.push(Task(3, int(job.job_id), job.job_id, job.user_id, job.lane, "any"))

    def _dispatch(self, now: float) -> None:
        while self.running < self.slots:
            lanes = [
                (self.queue.lane_tag(lane), place, lane)
                for place, lane in enumerate(LANES)
                if self.queue.peek(lane, "any") is not None
            ]
            if not lanes:
                if not self.running:
                    self.queue.idle()
                return
            lane = min(lanes)[2]
            head = self.queue.peek(lane, "any")
            assert head is not None
            job = self.jobs[head.job_id]
            cost = self._cost(job.stage)
            self.queue.pop(lane, "any", cost)
            self.calibration.note_dispatch(lane, cost)
            if job.started is None:
                job.started = now
                self.calibration.note_start(lane, job.expected, now - job.came)
            self.running += 1
            self._at(now + job.stages[job.stage], "settle", job)

    def _settle(self, now: float, job: Job) -> None:
        self.running -= 1
        measured = job.stages[job.stage]
        known = self.mean.get(job.stage, measured)
        self.mean[job.stage] = known + 0.2 * (measured - known)
        job.stage += 1
        if job.stage < len(job.stages):
            self._push(job)
            return
        job.ended = now
        assert job.started is not None
        self.calibration.note_end(job.lane, job.expected, job.started - job.came, now - job.came)
        self.ended.append(job)
        del self.jobs[job.job_id]

    def _look(self, now: float) -> None:
        self.calibration.look(
            int(now * 1000),
            self.slots,
            {lane: Sight(LANES[lane], self.queue.waiting_in(lane), self._histogram(lane)) for lane in LANES},
        )

    def _histogram(self, lane: str) -> Histogram:
        cost = sum(self._cost(stage) for stage in range(3))
        return build_histogram(
            self.queue.lane_virtual_time(lane),
            [
                Flow(self.queue.tag(lane, user), cost / self.queue.weight(user), count, cost)
                for user, count in self.queue.users_waiting(lane)
            ],
        )


def traffic(
    seed: int, phases: list[tuple[float, float]], *, users: int = 20, mean_seconds: float = 1.0
) -> Iterator[Job]:
    """Poisson arrivals of three-stage jobs over Zipf users and all lanes. phases: (seconds, jobs a second)."""
    draw = random.Random(seed)
    weights = [1 / (rank + 1) for rank in range(users)]
    now, number = 0.0, 0
    for seconds, rate in phases:
        end = now + seconds
        while (now := now + draw.expovariate(rate)) < end:
            number += 1
            user = draw.choices(range(users), weights)[0]
            lane = draw.choices(list(LANES), [3, 6, 1])[0]
            scale = {0: 0.3, 1: 0.2, 2: 0.5}
            size = draw.choice([0.3, 1.0, 2.0])
            stages = [mean_seconds * scale[stage] * size * draw.uniform(0.7, 1.3) for stage in range(3)]
            yield Job(str(number), f"user-{user}", lane, now, stages)
        now = end
