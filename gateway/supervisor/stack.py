"""Starts every role in order, keeps `stack.json` true, and stops them in order."""

import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final

import structlog

from gateway.supervisor import roles, state
from gateway.supervisor.errors import RoleFailedError, StackRunningError, StartTimeoutError
from gateway.supervisor.layout import Layout, Ports, StackSettings, write_secret
from gateway.supervisor.probes import gateway_says
from gateway.supervisor.role import Keeper, Role
from gateway.supervisor.state import RoleState, StackState
from streams.local.broker import Broker
from streams.local.files import try_lock
from streams.local.ports import LOOPBACK
from streams.local.settings import LocalBrokerSettings

if TYPE_CHECKING:
    from rich.console import Console

    from gateway.supervisor.watch import Signals

log = structlog.get_logger(__name__)

START_SECONDS: Final = 120.0
STOP_GROUPS: Final = (("gateway",), ("worker",), ("streams",), ("sink",), ("clickhouse", "broker"))
"""First nothing more comes in, then what runs ends, then what they wrote is folded and stored."""


class Stack:
    """All roles of one data directory; use it as a context manager and call `start` in it.

    One supervisor per data directory. Children die with it, also by kill -9; the next start cleans up.
    """

    def __init__(self, settings: StackSettings, console: "Console | None" = None) -> None:
        self.settings = settings
        self.layout = Layout(root=settings.data_dir)
        self._console = console
        self._keepers: dict[str, Keeper] = {}
        self._publishing = threading.Lock()
        self._lock_descriptor: int | None = None
        self._signals: Signals | None = None
        self._ports: Ports | None = None
        self._phase = "starting"
        self._began = time.monotonic()
        self._started_at = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._kafka: str | None = None
        self._accepting_seconds: float | None = None
        self._warm_seconds: float | None = None

    def __enter__(self) -> "Stack":
        self.layout.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = try_lock(self.layout.root / "lock")
        if descriptor is None:
            other = state.load(self.layout.root)
            raise StackRunningError(self.layout.root, other.pid if other else None)
        self._lock_descriptor = descriptor
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The gateway's address. Known once `start` has begun."""
        if self._ports is None:
            raise RuntimeError("the stack was not started")
        return f"http://{LOOPBACK}:{self._ports.gateway}"

    def start(self, timeout_seconds: float = START_SECONDS, tell: Callable[[str], None] = lambda _: None) -> float:
        """Start every role; returns the seconds until the gateway accepted. `tell` hears what is waited for.

        Raises StackError and LocalBrokerError; the caller's context manager stops what was started.
        """
        self._began = time.monotonic()
        deadline = self._began + timeout_seconds
        before = state.load(self.layout.root)
        if before is not None:
            for name in state.end_leftovers(before):
                log.warning("leftover ended", role=name)
        self.layout.make()
        self._ports = Ports.choose(self.layout.root, self.settings.cache_dir / "ports", self.settings.gateway_port)
        write_secret(self.layout.clickhouse_url_file, roles.clickhouse_url(self.layout, self._ports))
        self._keep(roles.clickhouse_role(self.layout, self._ports))
        tell("Kafka")
        bootstrap = self._start_broker(deadline)
        tell("topics")
        self._start_applications(bootstrap)
        tell("gateway and scheduler")
        self._wait_accepting(deadline, timeout_seconds)
        return self._accepting_seconds or 0.0

    def wait_warm(self, timeout_seconds: float = START_SECONDS) -> bool:
        """Wait until every worker has joined with its model loaded; False when that takes longer."""
        deadline = time.monotonic() + timeout_seconds
        workers = [keeper for name, keeper in self._keepers.items() if name.startswith("worker-")]
        warm = all(keeper.wait_ready(deadline - time.monotonic()) for keeper in workers)
        if warm and self._warm_seconds is None:
            self._warm_seconds = round(time.monotonic() - self._began, 2)
            self._publish()
        return warm

    def stop(self) -> None:
        """Drain and stop every role, in order. Does nothing the second time."""
        if self._lock_descriptor is None:
            return
        self._phase = "stopping"
        self._publish()
        if self._signals is not None:
            self._signals.close()
        try:
            for group in STOP_GROUPS:
                keepers = [keeper for name, keeper in self._keepers.items() if name.split("-")[0] in group]
                for keeper in keepers:
                    keeper.stop()
                for keeper in keepers:
                    keeper.finish()
        finally:
            for keeper in self._keepers.values():  # only when the orderly way was interrupted
                keeper.stop()
                keeper.finish(0.0 if keeper.is_alive() else None)
            self._phase = "stopped"
            self._publish()
            if self._ports is not None:
                self._ports.release()
            os.close(self._lock_descriptor)
            self._lock_descriptor = None

    def state(self) -> StackState:
        """What `stack.json` says now."""
        pid = os.getpid()
        return StackState(
            state=self._phase,
            pid=pid,
            created=state.created(pid) or 0.0,
            started_at=self._started_at,
            data_dir=str(self.layout.root),
            gateway=self.url if self._ports else "",
            kafka=self._kafka,
            key_file=str(self.layout.key_file),
            clickhouse_url_file=str(self.layout.clickhouse_url_file),
            objects_url=self.layout.objects_url,
            accepting_seconds=self._accepting_seconds,
            warm_seconds=self._warm_seconds,
            roles=self._role_states(),
        )

    def _role_states(self) -> tuple[RoleState, ...]:
        return tuple(keeper.state() for keeper in list(self._keepers.values()))

    def _publish(self) -> None:
        if self._ports is None:
            return
        with self._publishing:
            state.save(self.layout.root, self.state())

    def _keep(self, role: Role) -> Keeper:
        keeper = self._keepers[role.name] = Keeper(role, self._began, self._publish)
        keeper.start()
        return keeper

    def _start_broker(self, deadline: float) -> str:
        broker = Broker(LocalBrokerSettings.from_env(self.layout.role_dir("kafka")))
        broker.log_file = self.layout.log_file("broker")
        broker.prepare(self._console)
        keeper = self._keep(roles.BrokerRole(broker))
        self._must_be_ready(keeper, deadline)
        self._kafka = broker.bootstrap
        return broker.bootstrap

    def _start_applications(self, bootstrap: str) -> None:
        from gateway.supervisor import bootstrap as installation
        from gateway.supervisor.watch import Signals

        kafka = self.settings.kafka(bootstrap)
        installation.prepare(kafka, self.layout)
        assert self._ports is not None
        self._signals = Signals(kafka)
        self._signals.start()
        for role in roles.application_roles(self.settings, self.layout, self._ports, bootstrap, self._signals):
            self._keep(role)

    def _wait_accepting(self, deadline: float, timeout_seconds: float) -> None:
        assert self._ports is not None
        while True:
            status, body = 0, "the gateway does not listen yet"
            if self._keepers["gateway"].state().state == "running":  # else another program may answer at its port
                status, body = gateway_says(self._ports.gateway, "/readyz")
            if status == 200:
                break
            self._check_failing("gateway", "streams", "clickhouse", "broker")
            if time.monotonic() > deadline:
                raise StartTimeoutError(timeout_seconds, " ".join(body.split())[:200], self.layout.logs)
            time.sleep(0.05)
        self._accepting_seconds = round(time.monotonic() - self._began, 2)
        self._phase = "accepting"
        self._publish()
        log.info("stack accepting", url=self.url, seconds=self._accepting_seconds)

    def _check_failing(self, *names: str) -> None:
        for name in names:
            keeper = self._keepers.get(name)
            if keeper is not None and keeper.state().state == "failing":
                raise RoleFailedError(name, describe(keeper), keeper.role.log_file)

    def _must_be_ready(self, keeper: Keeper, deadline: float) -> None:
        if not keeper.wait_ready(deadline - time.monotonic()):
            raise RoleFailedError(keeper.role.name, describe(keeper), keeper.role.log_file)


def describe(keeper: Keeper) -> str:
    """Why a role does not start, from its last end and the last line of its log."""
    last = last_line(keeper.role.log_file)
    problem = keeper.last_problem or "it is not ready in time"
    return f"{problem} ({last})" if last else problem


def last_line(file: Path) -> str:
    """The last line of a log file, cut to 200 characters."""
    try:
        with file.open("rb") as log_file:
            log_file.seek(max(0, file.stat().st_size - 4096))
            lines = log_file.read().decode(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1].strip()[:200] if lines else ""
