"""What happened to every job of a run, in columns: 60 bytes a job, so that millions fit."""

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from streams.policy.config import LANES
from streams.simulate.measures import FairnessMeter, quantile

ENDS: Final = ("open", "succeeded", "failed", "canceled", "aborted", "rejected")
NEVER: Final = -1
Key = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Waits:
    """Seconds that jobs of one group waited for their first start. jobs: that came; started; p50, p90, p99: of those
    that started, None of none; total_p50, total_p90: until their end; gpu_seconds: that they were served."""

    jobs: int
    started: int
    p50: float | None
    p90: float | None
    p99: float | None
    total_p50: float | None
    total_p90: float | None
    gpu_seconds: float


@dataclass
class Ledger:
    """Told by a run, asked afterwards. Times are ms.

    number_of: the number of a job's id, from 0, dense; None: jobs are numbered as they come. bin_ms: width of the bins
    in which service is added up for plots, by lane, tier and (while they are few) user. meters: by lane, told of every
    task of their users.
    """

    bin_ms: int = 10_000
    number_of: Callable[[str], int] | None = None
    users_in_bins: int = 64
    meters: dict[str, FairnessMeter] = field(default_factory=dict)
    open: int = 0
    users: dict[str, int] = field(default_factory=dict)
    tiers: dict[str, int] = field(default_factory=dict)
    ends: dict[str, int] = field(default_factory=dict)
    served: dict[tuple[str, str, int], float] = field(default_factory=dict)  # (dimension, name, bin) -> GPU-seconds
    busy_seconds: float = 0.0

    def __post_init__(self) -> None:
        self._arrived, self._started, self._ended = array("q"), array("q"), array("q")
        self._user, self._tier, self._lane, self._end = array("i"), array("h"), array("b"), array("b")
        self._gpu_seconds = array("d")
        self._numbers: dict[str, int] = {}

    # ---- told ---------------------------------------------------------------------------------------------------

    def arrived(self, ready: dict[str, Any], at: int) -> None:
        """A job begins to wait."""
        number = len(self._arrived)
        if self.number_of is None:
            if ready["job_id"] in self._numbers:
                return  # told twice
            self._numbers[ready["job_id"]] = number
        self._arrived.append(at)
        self._started.append(NEVER)
        self._ended.append(NEVER)
        self._user.append(self.users.setdefault(ready["user_id"], len(self.users)))
        self._tier.append(self.tiers.setdefault(ready["tier"], len(self.tiers)))
        self._lane.append(LANES.index(ready["lane"]))
        self._end.append(0)
        self._gpu_seconds.append(0.0)
        self.open += 1
        meter = self.meters.get(ready["lane"])
        if meter is not None:
            meter.ready(ready["user_id"], at / 1000)

    def started(self, item: dict[str, Any], at: int, gpu_seconds: float) -> None:
        """A task of it is dispatched and will cost this much."""
        number = self._number(item["job_id"])
        if number is not None and self._started[number] == NEVER:
            self._started[number] = at
        meter = self.meters.get(item["lane"])
        if meter is not None:
            meter.start(item["user_id"], gpu_seconds, at / 1000)

    def settled(self, item: dict[str, Any], at: int, gpu_seconds: float) -> None:
        """An attempt has ended."""
        number = self._number(item["job_id"])
        if number is not None:
            self._gpu_seconds[number] += gpu_seconds
        self.busy_seconds += gpu_seconds
        user_id, version = item["user_id"], item.get("model_version")
        keys = [("lane", item["lane"]), ("tier", item["tier"])]
        if self.users.get(user_id, self.users_in_bins) < self.users_in_bins:
            keys.append(("user", user_id))
        if version is not None:
            keys.append(("version", version))
        self._spread(keys, item["dispatched_at"], at, gpu_seconds)

    def _spread(self, keys: list[Key], begin: int, end: int, gpu_seconds: float) -> None:
        """Adds service to the bins over which it was given."""
        first, last = begin // self.bin_ms, end // self.bin_ms
        for place in range(first, last + 1):
            share = 1.0
            if first != last:
                share = (min(end, (place + 1) * self.bin_ms) - max(begin, place * self.bin_ms)) / (end - begin)
            for kind, name in keys:
                key = (kind, name, place)
                self.served[key] = self.served.get(key, 0.0) + gpu_seconds * share

    def withdrawn(self, event: dict[str, Any], at: int) -> None:
        """A waiting task of it is gone: the scheduler itself ended the job."""
        meter = self.meters.get(event["lane"])
        if meter is not None:
            meter.withdraw(event["user_id"], at / 1000)

    def waits_again(self, item: dict[str, Any], at: int) -> None:
        """Its next task, or another attempt, begins to wait."""
        meter = self.meters.get(item["lane"])
        if meter is not None:
            meter.ready(item["user_id"], at / 1000)

    def ended(self, job_id: str, how: str, at: int) -> None:
        """The job's end; the first one counts."""
        number = self._number(job_id)
        if number is None or self._end[number]:
            return
        self._end[number] = ENDS.index(how)
        self._ended[number] = at
        self.ends[how] = self.ends.get(how, 0) + 1
        self.open -= 1

    def _number(self, job_id: str) -> int | None:
        return self.number_of(job_id) if self.number_of is not None else self._numbers.get(job_id)

    # ---- asked --------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._arrived)

    def waits(self, dimension: str, *, since: int = 0, until: int | None = None) -> dict[str, Waits]:
        """Waits of the jobs that arrived in [since, until) by `lane`, `tier` or `user`; `all` is one group."""
        names, column = self._dimension(dimension)
        groups: dict[int, list[int]] = {}
        for number, at in enumerate(self._arrived):
            if at >= since and (until is None or at < until):
                groups.setdefault(column[number] if column is not None else 0, []).append(number)
        return {names[group]: self._waits(numbers) for group, numbers in sorted(groups.items())}

    def first_waits(self, dimension: str, name: str) -> list[float]:
        """Seconds to the first start of a group's jobs that started, in order of size."""
        names, column = self._dimension(dimension)
        wanted = names.index(name)
        return sorted(
            (started - arrived) / 1000
            for number, (arrived, started) in enumerate(zip(self._arrived, self._started, strict=True))
            if started != NEVER and (column is None or column[number] == wanted)
        )

    def span_ms(self) -> tuple[int, int]:
        """From the first arrival to the last end."""
        if not self._arrived:
            return 0, 0
        return self._arrived[0], max(max(self._ended), self._arrived[-1])

    def _dimension(self, dimension: str) -> tuple[list[str], "array[int] | None"]:
        if dimension == "lane":
            return list(LANES), self._lane
        if dimension == "tier":
            return list(self.tiers), self._tier
        if dimension == "user":
            return list(self.users), self._user
        return ["all"], None

    def _waits(self, numbers: list[int]) -> Waits:
        waits = sorted((self._started[n] - self._arrived[n]) / 1000 for n in numbers if self._started[n] != NEVER)
        totals = sorted((self._ended[n] - self._arrived[n]) / 1000 for n in numbers if self._ended[n] != NEVER)
        return Waits(
            jobs=len(numbers),
            started=len(waits),
            p50=quantile(waits, 0.5),
            p90=quantile(waits, 0.9),
            p99=quantile(waits, 0.99),
            total_p50=quantile(totals, 0.5),
            total_p90=quantile(totals, 0.9),
            gpu_seconds=sum(self._gpu_seconds[n] for n in numbers),
        )
