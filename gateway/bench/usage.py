"""CPU seconds by role, and what the rest of the machine used meanwhile."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import psutil

from gateway.supervisor.state import StackState

COLLECTOR: Final = "collector"


@dataclass(frozen=True, kw_only=True)
class Usage:
    """CPU seconds used so far. roles: by role, children included, workers together; machine: all processes; at:
    monotonic seconds of the reading, or the seconds between two."""

    roles: dict[str, float]
    machine: float
    at: float

    def since(self, before: "Usage") -> "Usage":
        """What was used between two readings."""
        roles = {name: seconds - before.roles.get(name, 0.0) for name, seconds in self.roles.items()}
        return Usage(roles=roles, machine=self.machine - before.machine, at=self.at - before.at)

    @property
    def product(self) -> float:
        """Of every role but the collector, which only measures."""
        return sum(seconds for name, seconds in self.roles.items() if name != COLLECTOR)

    @property
    def others(self) -> float:
        """Of processes that have nothing to do with the run."""
        return max(0.0, self.machine - sum(self.roles.values()))


def read_usage(stack: StackState, helpers: dict[str, int]) -> Usage:
    """Usage of a stack's roles, its supervisor and the measuring processes (by role, their pids)."""
    roles: dict[str, float] = {"supervisor": _cpu_seconds(stack.pid, children=False)}
    if stack.pid != os.getpid():
        roles["supervisor"] += _cpu_seconds(os.getpid(), children=False)
    for role in stack.roles:
        name = "worker" if role.name.startswith("worker-") else role.name
        if role.pid is not None:
            roles[name] = roles.get(name, 0.0) + _cpu_seconds(role.pid)
    for name, pid in helpers.items():
        roles[name] = _cpu_seconds(pid)
    return Usage(roles=roles, machine=_machine_seconds(), at=time.monotonic())


def usage_of(pids: Mapping[str, int]) -> Usage:
    """Usage of processes by role, their children included."""
    roles = {name: _cpu_seconds(pid) for name, pid in pids.items()}
    return Usage(roles=roles, machine=_machine_seconds(), at=time.monotonic())


def _machine_seconds() -> float:
    """CPU seconds that the whole machine has used."""
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0) + getattr(times, "steal", 0.0)
    # Guests' time stands in user and nice already.
    guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
    return float(sum(times) - idle - guests)


def _cpu_seconds(pid: int, *, children: bool = True) -> float:
    """User and system time of a process, and of the children that it has now; 0 when it is gone."""
    try:
        process = psutil.Process(pid)
        family = [process, *(process.children(recursive=True) if children else [])]
    except psutil.NoSuchProcess:
        return 0.0
    total = 0.0
    for one in family:
        try:
            times = one.cpu_times()
            total += float(times.user + times.system)
        except psutil.NoSuchProcess:
            pass
    return total
