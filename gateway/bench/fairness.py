"""The fairness benchmark: traces of many users on a live stack, measured by what jobs.events say.

Shares: 2, 10 and 50 users with weights 1:10 and costs 1:20 keep a backlog (beside 50, idle ones send their first job);
each has sent a job before, as users have. Strangers: two users of whom nothing is known, and whose first tasks are all
charged by the same guess.
Flood: nine users at 40 % load, alone and beside one who sends as much as all slots can do. First come, first served:
the jobs of the ten users again, all of one user.
"""

import os
import platform
import secrets
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final

import psutil
from confluent_kafka import KafkaException, Producer

from gateway.bench import served, trace
from gateway.bench.listener import EventListener
from gateway.bench.served import Served
from gateway.bench.trace import Trace, TraceJob
from schemas.codec import Codec
from schemas.topics import TENANTS, requests_topic
from streams.kafka.producer import producer_config
from streams.kafka.settings import KafkaSettings
from streams.simulate.measures import quantile

PAIR_SECONDS: Final = 15.0
TEN_SECONDS: Final = 18.0
FIFTY_SECONDS: Final = 32.0
FLOOD_SECONDS: Final = 15.0
IDLE_USERS: Final = 5
ACK_SECONDS: Final = 30.0
WARM_UP_SECONDS: Final = 60.0
# How much longer than meant a trace may take before the benchmark gives up.
PATIENCE: Final = 4.0
TIER: Final = "enterprise"
NO_LIMIT: Final = 1_000_000
Figures = dict[str, Any]


class FairnessFailed(RuntimeError):
    """The benchmark could not be carried out."""


class FairnessBenchmark:
    """Runs on a stack whose synthetic slots take `in_flight` tasks at once; use it as a context manager."""

    def __init__(self, kafka: KafkaSettings, in_flight: int) -> None:
        self._kafka = kafka
        self._in_flight = in_flight
        self._prefix = f"fair-{secrets.token_hex(4)}-"
        self._codec = Codec()
        self._producer = Producer(producer_config(kafka, linger_ms=2))
        self._failures: list[KafkaException] = []
        self._listener = EventListener(kafka, self._prefix)
        strangers = trace.backlogged(2, in_flight, PAIR_SECONDS, known=False)
        pair = trace.backlogged(2, in_flight, PAIR_SECONDS)
        ten = trace.backlogged(10, in_flight, TEN_SECONDS)
        fifty = trace.backlogged(50, in_flight, FIFTY_SECONDS, idle=IDLE_USERS)
        self._traces = {
            one.name: one
            for one in (
                strangers,
                pair,
                ten,
                trace.first_come_first_served(ten),
                fifty,
                trace.neighbours(in_flight, FLOOD_SECONDS, flooded=False),
                trace.neighbours(in_flight, FLOOD_SECONDS, flooded=True),
            )
        }

    def __enter__(self) -> "FairnessBenchmark":
        self._listener.__enter__()
        for one in self._traces.values():
            for user in one.users:
                self._write_user(self._user_id(one, user.name), user.weight)
        self._flush()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.__exit__(kind, error, trace)

    def measure(self, tell: Callable[[str], None] = lambda _: None) -> tuple[Figures, dict[str, Served]]:
        """All traces, one after another; `tell` hears what goes on. The figures, and what was served in each trace.

        Raises FairnessFailed, KafkaException.
        """
        tell("Warming up")
        self._warm_up()
        found: dict[str, Served] = {}
        for name, one in self._traces.items():
            tell(f"{name}: {len(one.users)} users, {len(one.jobs)} jobs")
            found[name] = self._run(one)
        return self._figures(found), found

    def weights(self, name: str) -> dict[str, float]:
        """The users of a trace who keep a backlog, with their weights."""
        one = self._traces[name]
        return {self._user_id(one, u.name): u.weight for u in one.users if not u.name.startswith("idle")}

    # ---- running ------------------------------------------------------------------------------------------------

    def _warm_up(self) -> None:
        """A few short jobs, so that every process has done everything once."""
        one = self._traces["shares-10"]
        jobs = [TraceJob(at_seconds=0.0, user=user.name, cost_seconds=0.0) for user in one.users] * 3
        self._must_end(self._submit(one, jobs), WARM_UP_SECONDS)

    def _run(self, one: Trace) -> Served:
        if one.before:
            self._must_end(self._submit(one, one.before), WARM_UP_SECONDS)
        began = time.monotonic()
        jobs = self._submit(one, one.jobs)
        self._must_end(jobs, PATIENCE * one.seconds + 30.0 - (time.monotonic() - began))
        found = served.read_events(self._listener.events_of(jobs))
        if found.succeeded != len(jobs):
            raise FairnessFailed(f"{one.name}: of {len(jobs)} jobs {found.succeeded} succeeded")
        return found

    def _submit(self, one: Trace, jobs: "tuple[TraceJob, ...] | list[TraceJob]") -> dict[str, TraceJob]:
        """Sends each job at its time; job_id -> job."""
        sent: dict[str, TraceJob] = {}
        began = time.monotonic()
        for job in jobs:
            wait = job.at_seconds - (time.monotonic() - began)
            if wait > 0:
                self._producer.poll(0)
                time.sleep(wait)
            job_id = str(uuid.uuid4())
            sent[job_id] = job
            request = self._request(one, job_id, job)
            self._produce(requests_topic("text-to-3d"), request["user_id"], "job_requested", request)
        self._flush()
        return sent

    def _must_end(self, jobs: Mapping[str, TraceJob], timeout_seconds: float) -> None:
        left = self._listener.wait_ended(set(jobs), timeout_seconds)
        if left:
            raise FairnessFailed(f"{len(left)} of {len(jobs)} jobs did not end within {timeout_seconds:.0f} s")

    def _user_id(self, one: Trace, name: str) -> str:
        return f"{self._prefix}{one.name}-{name}"

    def _request(self, one: Trace, job_id: str, job: TraceJob) -> Figures:
        return {
            "request_id": str(uuid.uuid4()), "job_id": job_id, "user_id": self._user_id(one, job.user), "tier": None,
            "job_type": "model", "created_at": time.time_ns() // 1_000_000, "workflow": "text-to-3d",
            "pipeline_id": "synthetic", "model_version": None, "prompt": None, "seed": 0, "quality": "standard",
            "formats": ["glb"], "parameters": {"seconds": f"{job.cost_seconds:g}"}, "traceparent": None,
            "lane": "standard",
        }  # fmt: skip

    def _write_user(self, user_id: str, weight: float) -> None:
        tenant = {
            "user_id": user_id, "tier": TIER, "weight": weight, "requests_per_minute": 60.0 * NO_LIMIT,
            "burst_requests": NO_LIMIT, "scopes": ["jobs", "synthetic"], "keys": [],
            "updated_at": time.time_ns() // 1_000_000,
        }  # fmt: skip
        self._produce(TENANTS, user_id, "tenant", tenant)

    def _produce(self, topic: str, key: str, record: str, value: Figures) -> None:
        self._producer.produce(
            topic,
            key=key,
            value=self._codec.encode(record, value),
            on_delivery=lambda error, _: self._failures.append(KafkaException(error)) if error else None,
        )

    def _flush(self) -> None:
        if self._producer.flush(ACK_SECONDS):
            raise FairnessFailed(f"Kafka did not take all requests within {ACK_SECONDS:.0f} s")
        if self._failures:
            raise self._failures[0]

    # ---- figures ------------------------------------------------------------------------------------------------

    def _figures(self, found: dict[str, Served]) -> Figures:
        shares = {
            name: asdict(served.fairness(found[name], self.weights(name), self._in_flight))
            for name in ("shares-2", "shares-10", "shares-50")
        }
        fifty = self._traces["shares-50"]
        idle = [self._user_id(fifty, f"idle{k}") for k in range(IDLE_USERS)]
        rounds = [
            round(served.rounds_before_first_start(found["shares-50"], user_id, self._in_flight), 3) for user_id in idle
        ]
        strangers = served.fairness(found["strangers-2"], self.weights("strangers-2"), self._in_flight)
        alone, flooded = (self._neighbours(found[name]) for name in ("alone", "flooded"))
        fair, fcfs = (served.throughput(found[name]) for name in ("shares-10", "shares-10-fcfs"))
        return {
            "lag_over_bound": round(max(one["lag_over_bound"] for one in shares.values()), 4),
            "jain": round(min(one["jain"] or 0.0 for one in shares.values()), 5),
            "fcfs_ratio": round(fair / fcfs, 4) if fcfs else None,
            "flooded_neighbour_p99_ratio": round(flooded["p99"] / alone["p99"], 3),
            "lag_over_bound_of_strangers": round(strangers.lag_over_bound, 4),
            "rounds_to_first_start": max(rounds),
            "rounds": rounds,
            "neighbours_alone": alone,
            "neighbours_flooded": flooded,
            "gpu_seconds_per_second": round(fair, 3),
            "gpu_seconds_per_second_fcfs": round(fcfs, 3),
            "shares": shares,
            "in_flight": self._in_flight,
            "jobs": {name: len(one.jobs) for name, one in self._traces.items()},
            "machine": {
                "cpus": os.cpu_count(),
                "memory_bytes": psutil.virtual_memory().total,
                "system": platform.platform(),
                "python": platform.python_version(),
            },
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    @staticmethod
    def _neighbours(found: Served) -> dict[str, float]:
        waits = neighbour_waits(found)
        return {
            "jobs": len(waits),
            "p50": round(quantile(waits, 0.5) or 0.0, 4),
            "p99": round(quantile(waits, 0.99) or 0.0, 4),
        }


def neighbour_waits(found: Served) -> list[float]:
    """Seconds from request to first start of all but the flooder, in order of size."""
    return sorted(wait for user, waits in found.waits.items() if not user.endswith("flooder") for wait in waits)
