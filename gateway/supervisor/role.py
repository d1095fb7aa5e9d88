"""One role of the stack: how it is started, and the thread that keeps it alive."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import structlog

from gateway.supervisor.probes import listens
from gateway.supervisor.state import RoleState, created
from streams.local.errors import LocalBrokerError
from streams.local.process import spawn

log = structlog.get_logger(__name__)

BACKOFF_SECONDS: Final = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0)
STEADY_SECONDS: Final = 20.0
"""A role that ran this long starts again at once when it ends."""
FAILING_AFTER: Final = 3
"""This many ends in a row before it was ready, and the stack's start gives up on the role."""
PROBE_SECONDS: Final = 0.05
LOG_ROTATED_AT_BYTES: Final = 20 * 1024 * 1024


class Role(Protocol):
    """What the keeper needs of a role."""

    name: str
    log_file: Path
    port: int | None
    endpoint: str | None
    stop_seconds: float

    def launch(self) -> subprocess.Popen[bytes]:
        """Start its process, bound to the calling thread. Raises OSError or LocalBrokerError."""
        ...

    def is_ready(self) -> bool:
        """Whether it does its work now; called again and again until it does."""
        ...

    def ended(self) -> None:
        """Called after its process has ended."""
        ...


@dataclass(kw_only=True)
class CommandRole:
    """A role that is a command line."""

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    log_file: Path
    ready: Callable[[], bool] | None = None
    """None: it is ready when it has run for a second."""
    port: int | None = None
    endpoint: str | None = None
    stop_seconds: float = 10.0
    launched_at: float = 0.0
    pid: int = 0

    def launch(self) -> subprocess.Popen[bytes]:
        """Start it; its output goes to its log file."""
        self.launched_at = time.monotonic()
        if self.log_file.exists() and self.log_file.stat().st_size > LOG_ROTATED_AT_BYTES:
            os.replace(self.log_file, self.log_file.with_suffix(".log.1"))
        process = spawn(self.arguments, environment=self.environment, log_file=self.log_file, with_parent=True)
        self.pid = process.pid
        return process

    def is_ready(self) -> bool:
        """By its probe; a role with a port must itself listen there."""
        if self.port is not None and not listens(self.pid, self.port):
            return False
        if self.ready is None:
            return time.monotonic() - self.launched_at > 1.0
        return self.ready()

    def ended(self) -> None:
        """Nothing is left to do."""


class Keeper(threading.Thread):
    """Keeps one role alive: starts it, waits, starts it again with growing pauses.

    The thread lives as long as its process, because the process dies with the thread that started it.
    """

    def __init__(self, role: Role, began: float, changed: Callable[[], None]) -> None:
        super().__init__(name=f"keep-{role.name}", daemon=True)
        self.role = role
        self._began = began
        self._changed = changed
        self._stopping = threading.Event()
        self._gone = threading.Event()
        self._ready = threading.Event()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._state = "waiting"
        self._created: float | None = None
        self._launches = 0
        self._ready_seconds: float | None = None
        self.early_ends = 0
        self.last_problem = ""

    def state(self) -> RoleState:
        """What `stack.json` says about the role."""
        process = self._process
        return RoleState(
            name=self.role.name,
            state=self._state,
            pid=process.pid if process else None,
            created=self._created,
            port=self.role.port,
            endpoint=self.role.endpoint,
            log_file=str(self.role.log_file),
            restarts=max(0, self._launches - 1),
            ready_seconds=self._ready_seconds,
        )

    def wait_ready(self, timeout_seconds: float) -> bool:
        """Wait until the role was ready once; False when that takes longer or it fails again and again."""
        deadline = time.monotonic() + timeout_seconds
        while not self._ready.wait(PROBE_SECONDS):
            if self.early_ends >= FAILING_AFTER or time.monotonic() > deadline:
                return False
        return True

    def stop(self) -> None:
        """Ask the role to end (SIGTERM); returns at once. `finish` waits."""
        with self._lock:
            self._stopping.set()
            process = self._process
        if process is not None:
            self._set("stopping")
            _signal_group(process.pid, signal.SIGTERM, whole_group=False)

    def finish(self, timeout_seconds: float | None = None) -> None:
        """Wait until the role has ended; after its `stop_seconds` (or the given time) the whole group is killed."""
        if not self.is_alive() and not self._launches:
            return
        limit = self.role.stop_seconds if timeout_seconds is None else timeout_seconds
        if not self._gone.wait(limit):
            process = self._process
            if process is not None:
                log.warning("role killed", role=self.role.name, after_seconds=limit)
                _signal_group(process.pid, signal.SIGKILL, whole_group=True)
        self.join(10.0)

    def run(self) -> None:
        """Start, wait, start again, until `stop`."""
        ends = 0
        while not self._stopping.is_set():
            launched = time.monotonic()
            was_ready = self._run_once()
            if self._stopping.is_set():
                break
            steady = time.monotonic() - launched > STEADY_SECONDS
            ends = 1 if steady else ends + 1
            self.early_ends = 0 if was_ready else self.early_ends + 1
            pause = BACKOFF_SECONDS[min(ends, len(BACKOFF_SECONDS)) - 1]
            self._set("failing" if self.early_ends >= FAILING_AFTER else "restarting")
            log.warning("role ended", role=self.role.name, problem=self.last_problem, restart_in_seconds=pause)
            self._stopping.wait(pause)
        self._set("stopped")
        self._gone.set()

    def _run_once(self) -> bool:
        """One life of the process; returns whether it was ready."""
        try:
            with self._lock:
                if self._stopping.is_set():
                    return True
                process = self._process = self.role.launch()
        except (OSError, LocalBrokerError) as error:
            self.last_problem = str(error)
            self._launches += 1
            return False
        self._launches += 1
        self._created = created(process.pid)
        self._set("starting")
        ready = self._until_ready(process)
        if ready:
            if self._ready_seconds is None:
                self._ready_seconds = round(time.monotonic() - self._began, 2)
            self._ready.set()
            if not self._stopping.is_set():
                self._set("running")
        code = process.wait()
        _signal_group(process.pid, signal.SIGKILL, whole_group=True)  # what it left behind, if anything
        self._process, self._created = None, None
        self.role.ended()
        self.last_problem = f"ended with code {code}" if code >= 0 else f"killed by signal {-code}"
        return ready

    def _until_ready(self, process: subprocess.Popen[bytes]) -> bool:
        while process.poll() is None:
            if self.role.is_ready():
                return True
            time.sleep(PROBE_SECONDS)
        return False

    def _set(self, state: str) -> None:
        if state != self._state:
            self._state = state
            self._changed()


def _signal_group(pid: int, number: int, *, whole_group: bool) -> None:
    try:
        if whole_group:
            os.killpg(pid, number)
        else:
            os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass
