"""`stack.json`: what runs, where it listens and where its key is, for other processes."""

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from streams.local.files import write_json

STATE_FILE: Final = "stack.json"


class RoleState(msgspec.Struct, frozen=True, kw_only=True):
    """One role. state: waiting, starting, running, restarting, stopping, stopped or failing; ready_seconds: from the
    stack's start until it first did its work (a worker: its model is loaded and it has joined)."""

    name: str
    state: str
    pid: int | None = None
    created: float | None = None
    port: int | None = None
    endpoint: str | None = None
    log_file: str
    restarts: int = 0
    ready_seconds: float | None = None


class StackState(msgspec.Struct, frozen=True, kw_only=True):
    """The whole stack. state: starting, accepting, stopping or stopped; pid and created: the supervisor's; key_file:
    holds the API key of the user `local`; clickhouse_url_file: holds the address with its password; accepting_seconds,
    warm_seconds: from its start until it took requests, until every worker was ready."""

    state: str
    pid: int
    created: float
    started_at: str
    data_dir: str
    gateway: str
    kafka: str | None
    key_file: str
    clickhouse_url_file: str
    objects_url: str
    accepting_seconds: float | None = None
    warm_seconds: float | None = None
    roles: tuple[RoleState, ...] = ()


def save(data_dir: Path, state: StackState) -> None:
    """Replace `stack.json` in one step."""
    write_json(data_dir / STATE_FILE, msgspec.to_builtins(state), mode=0o600)


def load(data_dir: Path) -> StackState | None:
    """What `stack.json` says; None when there is none or it is from another version."""
    try:
        return msgspec.json.decode((data_dir / STATE_FILE).read_bytes(), type=StackState)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def running(data_dir: Path) -> StackState | None:
    """The stack that runs on a data directory now; None when its supervisor is gone."""
    state = load(data_dir)
    if state is None or not is_alive(state.pid, state.created):
        return None
    return state


def created(pid: int) -> float | None:
    """When a process began (seconds since 1970): with the pid it names one process for good. None: it is gone."""
    import psutil

    try:
        return float(psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return None


def is_alive(pid: int, began: float) -> bool:
    """Whether a process still runs, and is the one that began then."""
    import psutil

    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - began) < 0.1 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def end_leftovers(state: StackState, timeout_seconds: float = 10.0) -> list[str]:
    """Kill what a supervisor that died left behind; returns the names of the roles that still ran.

    Children die with their supervisor, so this finds something only when the kernel is not done with them yet.
    """
    left = {role.name: role for role in state.roles if _role_alive(role)}
    for role in left.values():
        try:
            os.killpg(role.pid or 0, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
    deadline = time.monotonic() + timeout_seconds
    while any(_role_alive(role) for role in left.values()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return sorted(left)


def _role_alive(role: RoleState) -> bool:
    return role.pid is not None and role.created is not None and is_alive(role.pid, role.created)


def role_memory_bytes(role: RoleState) -> int:
    """Resident memory of a role and its children, 0 when it does not run."""
    import psutil

    if not _role_alive(role):
        return 0
    total = 0
    try:
        process = psutil.Process(role.pid)
        for one in [process, *process.children(recursive=True)]:
            try:
                total += one.memory_info().rss
            except psutil.NoSuchProcess:
                pass
    except psutil.NoSuchProcess:
        pass
    return total


def by_name(state: StackState) -> Mapping[str, RoleState]:
    """The roles by name."""
    return {role.name: role for role in state.roles}
