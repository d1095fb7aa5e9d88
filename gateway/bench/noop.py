"""The no-op benchmark: synthetic jobs of three stages that do nothing, so that what is left is the platform.

Flood: one submitter sends as fast as it can; jobs per CPU-second of every process of ours and the broker (the
collector left out), until the last end was read and the sink has stored it. Low load: an open loop at 20 jobs/s;
latency from the intended send time (a late submitter is not forgiven) until the job's terminal event was read.
"""

import multiprocessing
import os
import platform
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Final

import psutil

from gateway.bench.collector import Collected, Wanted, collect
from gateway.bench.direct import submit_directly
from gateway.bench.submitter import Load, Submitted, submit
from gateway.bench.usage import COLLECTOR, Usage, read_usage
from gateway.bench.users import BenchUsers
from gateway.supervisor.state import StackState
from schemas.jobs import Transition
from streams.kafka.settings import KafkaSettings

USERS: Final = 10
LOW_JOBS_PER_SECOND: Final = 20.0
WARM_UP_JOBS: Final = 500  # a fresh JVM takes some hundreds until its hot paths are compiled
WARM_UP_SECONDS: Final = 60.0
HELPER_SECONDS: Final = 60.0
Figures = dict[str, Any]


class BenchFailed(RuntimeError):
    """The benchmark could not be carried out."""


class NoopBenchmark:
    """Runs on a stack that accepts; use it as a context manager.

    timeout_seconds: how long the jobs of a phase may take; those that have not ended then are `lost`. direct: requests
    are written to Kafka, as an upstream product does, and not sent over HTTP.
    """

    def __init__(self, stack: StackState, timeout_seconds: float = 120.0, *, direct: bool = False) -> None:
        if stack.kafka is None:
            raise BenchFailed("the stack has no Kafka yet")
        self._stack = stack
        self._timeout_seconds = timeout_seconds
        kafka = KafkaSettings(bootstrap=stack.kafka)
        self._users = BenchUsers(kafka, USERS)
        self._kafka = kafka
        self._direct = direct
        self._processes: dict[str, Any] = {}
        self._pipes: dict[str, Connection] = {}

    def __enter__(self) -> "NoopBenchmark":
        self._users.__enter__()
        if self._direct:
            self._start("submitter", submit_directly, self._kafka, self._users.ids)
        else:
            self._start("submitter", submit, self._stack.gateway, self._users.keys)
        self._start(COLLECTOR, collect, self._kafka)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pipe in self._pipes.values():
            pipe.close()
        for process in self._processes.values():
            process.join(HELPER_SECONDS if error is None else 2.0)
            if process.is_alive():
                process.kill()
        self._users.__exit__(kind, error, trace)

    def measure(self, jobs: int, low_seconds: float, tell: Callable[[str], None] = lambda _: None) -> Figures:
        """All phases; `tell` hears what goes on. Raises BenchFailed."""
        tell("Warming up")
        first = self._phase(Load(name="first", jobs=USERS, rate_per_second=20.0), WARM_UP_SECONDS)
        if first["lost"]:
            raise BenchFailed("no slot takes synthetic jobs; start the stack with `--synthetic-slots`")
        self._phase(Load(name="warm-up", jobs=min(WARM_UP_JOBS, jobs), rate_per_second=None))
        tell(f"{jobs} jobs at once")
        flood = self._phase(Load(name="flood", jobs=jobs, rate_per_second=None))
        tell(f"{LOW_JOBS_PER_SECOND:.0f} jobs/s for {low_seconds:.0f} s")
        low_jobs = max(1, round(LOW_JOBS_PER_SECOND * low_seconds))
        low = self._phase(Load(name="low", jobs=low_jobs, rate_per_second=LOW_JOBS_PER_SECOND))
        slots = sum(role.name.startswith("worker-") for role in self._stack.roles)
        return {
            "name": "meshyard",
            "jobs": jobs,
            "slots": slots,
            **{key: flood[key] for key in _FLOOD_KEYS},
            "lost": flood["lost"] + low["lost"],
            "repeated": flood["repeated"] + low["repeated"],
            "not_succeeded": flood["not_succeeded"] + low["not_succeeded"],
            **{key: low[key] for key in ("p50_ms", "p95_ms", "p99_ms")},
            "low": low,
            "durability": "kafka acks=all, idempotent, transactions; replicas as the topics have; page cache",
            "machine": _machine(),
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    def _phase(self, load: Load, timeout_seconds: float | None = None) -> Figures:
        wanted = Wanted(
            jobs=load.jobs,
            user_prefix=self._users.prefix,
            timeout_seconds=timeout_seconds or self._timeout_seconds,
            prompt=load.rate_per_second is not None,
        )
        pids = {name: process.pid for name, process in self._processes.items()}
        self._ask(COLLECTOR, wanted)
        before = read_usage(self._stack, pids)
        submitted: Submitted = self._ask("submitter", load, wanted.timeout_seconds)
        if submitted.problem is not None:
            raise BenchFailed(f"the submitter gave up: {submitted.problem}")
        collected: Collected = self._answer(COLLECTOR, wanted.timeout_seconds)
        used = read_usage(self._stack, pids).since(before)
        return phase_figures(load, submitted, collected, used)

    def _start(self, name: str, work: Callable[..., None], *arguments: object) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=work, args=(*arguments, theirs), name=name, daemon=True)
        process.start()
        theirs.close()
        self._processes[name], self._pipes[name] = process, ours

    def _ask(self, name: str, what: object, seconds: float = 0.0) -> Any:
        self._pipes[name].send(what)
        return self._answer(name, seconds)

    def _answer(self, name: str, seconds: float) -> Any:
        try:
            if self._pipes[name].poll(seconds + HELPER_SECONDS):
                return self._pipes[name].recv()
        except (EOFError, OSError) as error:
            raise BenchFailed(f"the {name} has died") from error
        raise BenchFailed(f"the {name} does not answer")


_FLOOD_KEYS: Final = (
    "jobs_per_s",
    "jobs_per_cpu_s",
    "cpu_cores",
    "other_cores",
    "submit_s",
    "cpu_ms_per_job",
    "collector_cpu_ms_per_job",
    "sink_stored",
)


def phase_figures(load: Load, submitted: Submitted, collected: Collected, used: Usage) -> Figures:
    """The figures of one phase. CPU in ms a job, times in ms, rates over the time until the last end was read."""
    ends = {job_id: collected.ended[job_id] for job_id in submitted.intended if job_id in collected.ended}
    latencies_ms = sorted((at - submitted.intended[job_id]) / 1e6 for job_id, (at, _) in ends.items())
    last = max((at for at, _ in ends.values()), default=submitted.began)
    seconds = max(1e-9, (last - submitted.began) / 1e9)
    per_job = {name: round(1000 * value / load.jobs, 3) for name, value in used.roles.items()}
    collector_ms = per_job.pop(COLLECTOR, 0.0)
    return {
        "jobs": load.jobs,
        "rate": load.rate_per_second,
        "jobs_per_s": round(len(ends) / seconds, 1),
        "p50_ms": percentile(latencies_ms, 0.50),
        "p95_ms": percentile(latencies_ms, 0.95),
        "p99_ms": percentile(latencies_ms, 0.99),
        "submit_s": round(submitted.seconds, 2),
        "asked_again": submitted.repeats,
        "lost": load.jobs - len(ends),
        "repeated": collected.repeated,
        "not_succeeded": sum(how != Transition.SUCCEEDED for _, how in ends.values()),
        "sink_stored": collected.sink_stored,
        "cpu_ms_per_job": dict(sorted(per_job.items(), key=lambda one: -one[1])),
        "collector_cpu_ms_per_job": collector_ms,
        "cpu_cores": round(used.product / used.at, 2),
        "other_cores": round(used.others / used.at, 2),
        "jobs_per_cpu_s": round(load.jobs / used.product, 1) if used.product else None,
    }


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """The value below which that share lies, of values in order; None of nothing."""
    if not ordered:
        return None
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2)


def _machine() -> dict[str, object]:
    return {
        "cpus": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": platform.platform(),
        "python": platform.python_version(),
    }
