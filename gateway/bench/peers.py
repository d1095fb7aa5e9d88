"""Other task queues, measured as Meshyard is: Celery and Dramatiq, each with a Redis of its own.

The same job (about 300 bytes, three stages that do nothing, the result stored), the same phases, the same sums: CPU of
submitter, workers and broker in a flood, and in an open loop the time from the intended send time until a process of
its own has read the result. Redis appends to its file and syncs it every second: what a power cut may cost is of the
same kind as with Kafka's page cache; killed processes lose nothing, because messages are acknowledged late.
"""

import json
import queue
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from gateway.bench.collector import Collected
from gateway.bench.noop import HELPER_SECONDS, LOW_JOBS_PER_SECOND, BenchFailed, Figures, phase_figures
from gateway.bench.peers_env import REPOSITORY
from gateway.bench.submitter import Load, Submitted
from gateway.bench.usage import COLLECTOR, usage_of
from schemas.jobs import Transition

WARM_UP_JOBS: Final = 50
WARM_UP_FLOOD: Final = 500
STOP_SECONDS: Final = 10.0
_REDIS: Final = ("--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--appendfsync", "everysec")


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A task queue. worker: arguments of its workers' program, which is the first of them."""

    name: str
    title: str
    worker: tuple[str, ...]


PEERS: Final = (
    Peer(
        name="celery",
        title="Celery + Redis, acks_late, prefork -c 2",
        worker=(
            *("celery", "-A", "tests.benchmarks.peers.celery_app", "worker", "--concurrency", "2"),
            *("--loglevel", "warning", "--without-gossip", "--without-mingle", "--without-heartbeat"),
        ),
    ),
    Peer(
        name="dramatiq",
        title="Dramatiq + Redis, 2 processes x 8 threads",
        worker=("dramatiq", "tests.benchmarks.peers.dramatiq_app", "--processes", "2", "--threads", "8"),
    ),
)


class PeerBenchmark:
    """One peer; use it as a context manager. `programs`: the bin folder of the peers' environment.

    timeout_seconds: how long the jobs of a phase may take; those without a result then are `lost`.
    """

    def __init__(self, peer: Peer, redis_server: str, programs: Path, timeout_seconds: float = 300.0) -> None:
        self._peer = peer
        self._redis_server = redis_server
        self._programs = programs
        self._timeout_seconds = timeout_seconds
        self._folder = Path(tempfile.mkdtemp(prefix="meshyard-peer-"))
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self._talkers: dict[str, Talker] = {}

    def __enter__(self) -> "PeerBenchmark":
        try:
            self._start_all()
        except BaseException:
            self._stop_all()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop_all()

    def measure(self, jobs: int, low_seconds: float) -> Figures:
        """All phases. Raises BenchFailed."""
        first = self._phase(Load(name="first", jobs=WARM_UP_JOBS, rate_per_second=LOW_JOBS_PER_SECOND))
        if first["lost"]:
            raise BenchFailed(f"{self._peer.name} does not work: {self._last_words()}")
        self._phase(Load(name="warm-up", jobs=min(WARM_UP_FLOOD, jobs), rate_per_second=None))
        flood = self._phase(Load(name="flood", jobs=jobs, rate_per_second=None))
        low_jobs = max(1, round(LOW_JOBS_PER_SECOND * low_seconds))
        low = self._phase(Load(name="low", jobs=low_jobs, rate_per_second=LOW_JOBS_PER_SECOND))
        return {
            "name": self._peer.name,
            "title": self._peer.title,
            **{key: flood[key] for key in ("jobs", "jobs_per_s", "jobs_per_cpu_s", "cpu_ms_per_job", "cpu_cores")},
            "other_cores": max(flood["other_cores"], low["other_cores"]),
            **{key: low[key] for key in ("p50_ms", "p95_ms", "p99_ms")},
            "lost": flood["lost"] + low["lost"],
            "repeated": flood["repeated"] + low["repeated"],
            "durability": "redis appendonly, appendfsync everysec",
        }

    def _phase(self, load: Load) -> Figures:
        pids = {name: process.pid for name, process in self._processes.items()}
        wanted = {"jobs": load.jobs, "timeout_seconds": self._timeout_seconds}
        self._talkers[COLLECTOR].ask(wanted, HELPER_SECONDS)
        before = usage_of(pids)
        phase = {"name": load.name, "jobs": load.jobs, "rate_per_second": load.rate_per_second}
        said = self._talkers["submitter"].ask(phase, self._timeout_seconds + HELPER_SECONDS)
        found = self._talkers[COLLECTOR].hear(self._timeout_seconds + HELPER_SECONDS)
        used = usage_of(pids).since(before)
        ended = {job_id: (at, Transition.SUCCEEDED.value) for job_id, at in found["ended"].items()}
        return phase_figures(
            load,
            Submitted(**said, repeats=0, problem=None),
            Collected(ended=ended, repeated=found["repeated"], sink_stored=True),
            used,
        )

    def _start_all(self) -> None:
        port = _free_port()
        url = f"redis://127.0.0.1:{port}/0"
        self._start("broker", [self._redis_server, "--port", str(port), "--dir", str(self._folder), *_REDIS], url)
        _wait_for_port(port)
        program, *arguments = self._peer.worker
        self._start("worker", [str(self._programs / program), *arguments], url)
        python = str(self._programs / "python")
        for role, module in (("submitter", "submitter"), (COLLECTOR, "collector")):
            command = [python, "-m", f"tests.benchmarks.peers.{module}", self._peer.name]
            self._talkers[role] = Talker(role, self._start(role, command, url))

    def _start(self, role: str, command: Sequence[str], url: str) -> subprocess.Popen[str]:
        environ = _environ(url, self._programs)
        with (self._folder / f"{role}.log").open("ab") as log:
            process = subprocess.Popen(  # noqa: S603
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if role in ("submitter", COLLECTOR) else log,
                stderr=log,
                text=True,
                cwd=self._folder,
                env=environ,
                start_new_session=True,  # Ctrl-C is for us; we end them in order
            )
        self._processes[role] = process
        return process

    def _stop_all(self) -> None:
        for process in reversed(self._processes.values()):
            if process.stdin is not None:
                process.stdin.close()
            process.terminate()
        for process in self._processes.values():
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for talker in self._talkers.values():
            talker.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _last_words(self) -> str:
        lines = (self._folder / "worker.log").read_text(errors="replace").split("\n")
        return next((line for line in reversed(lines) if line.strip()), "its workers said nothing")[:300]


class Talker:
    """Lines of JSON to and from a process."""

    def __init__(self, role: str, process: subprocess.Popen[str]) -> None:
        self._role = role
        self.process = process
        self._lines: queue.Queue[str | None] = queue.Queue()  # None: it said its last
        self._thread = threading.Thread(target=self._read, name=f"reads-{role}", daemon=True)
        self._thread.start()

    def ask(self, what: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """Says it and waits for the answer. Raises BenchFailed."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(what) + "\n")
            self.process.stdin.flush()
        except OSError as error:
            raise BenchFailed(f"the {self._role} has died") from error
        return self.hear(seconds)

    def hear(self, seconds: float) -> dict[str, Any]:
        """The next answer. Raises BenchFailed."""
        try:
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            raise BenchFailed(f"the {self._role} does not answer") from None
        if line is None:
            raise BenchFailed(f"the {self._role} has died")
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        """Behind the process's end."""
        self._thread.join(STOP_SECONDS)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(None)


def comparison(measured: Mapping[str, Figures]) -> Figures:
    """The figures of `meshyard`, `meshyard_http` and each peer, and how they compare; ratios are ours to theirs."""
    ours = measured["meshyard"]
    peers = {peer.name: measured[peer.name] for peer in PEERS}
    figures: Figures = {"jobs_per_cpu_s": ours["jobs_per_cpu_s"], "p50_ms": ours["p50_ms"]}
    for name, peer in peers.items():
        figures[f"cpu_ratio_to_{name}"] = _ratio(ours["jobs_per_cpu_s"], peer["jobs_per_cpu_s"])
        figures[f"p50_ratio_to_{name}"] = _ratio(ours["p50_ms"], peer["p50_ms"])
        figures[f"{name}_jobs_per_cpu_s"] = peer["jobs_per_cpu_s"]
        figures[f"{name}_p50_ms"] = peer["p50_ms"]
    return {**figures, "meshyard": ours, "meshyard_http": measured["meshyard_http"], "peers": peers}


def _ratio(ours: float | None, theirs: float | None) -> float | None:
    return None if ours is None or not theirs else round(ours / theirs, 3)


def _environ(url: str, programs: Path) -> dict[str, str]:
    """Only what they need: settings of this process must not change the peers."""
    return {
        "PATH": f"{programs}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(Path.home()),
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": "ignore",
        "PEERS_REDIS_URL": url,
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for_port(port: int) -> None:
    deadline = time.monotonic() + HELPER_SECONDS
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise BenchFailed("redis-server does not answer")
