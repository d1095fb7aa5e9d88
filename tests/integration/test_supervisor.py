"""The supervisor's parts with small programs as roles."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import psutil
import pytest

from gateway.supervisor import state
from gateway.supervisor.errors import StackPortTakenError, StackRunningError
from gateway.supervisor.layout import Layout, Ports, StackSettings
from gateway.supervisor.probes import clickhouse_answers, gateway_says, listens
from gateway.supervisor.role import FAILING_AFTER, CommandRole, Keeper
from gateway.supervisor.stack import Stack, describe
from gateway.supervisor.state import RoleState, StackState
from streams.local import ports

WAIT_SECONDS = 20.0


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.01)


def shell(folder: Path, script: str, ready: Callable[[], bool] | None = None, stop_seconds: float = 5.0) -> CommandRole:
    return CommandRole(
        name="role",
        arguments=["/bin/sh", "-c", script],
        environment={"PATH": os.defpath},
        log_file=folder / "role.log",
        ready=ready or (lambda: True),
        stop_seconds=stop_seconds,
    )


@pytest.fixture
def keep() -> Iterator[Callable[[CommandRole], Keeper]]:
    """Starts keepers and ends them after the test."""
    keepers: list[Keeper] = []

    def start(role: CommandRole) -> Keeper:
        keeper = Keeper(role, time.monotonic(), lambda: None)
        keepers.append(keeper)
        keeper.start()
        return keeper

    yield start
    for keeper in keepers:
        keeper.stop()
        keeper.finish(0.0)


def test_a_killed_role_is_started_again(keep: Callable[[CommandRole], Keeper], tmp_path: Path) -> None:
    keeper = keep(shell(tmp_path, "exec sleep 60"))
    assert keeper.wait_ready(WAIT_SECONDS)
    first = keeper.state().pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    until(lambda: keeper.state().state == "running" and keeper.state().pid not in (None, first))
    assert keeper.state().restarts == 1
    assert keeper.last_problem == "killed by signal 9"


def test_a_role_that_never_gets_ready_is_told_with_its_last_words(
    keep: Callable[[CommandRole], Keeper], tmp_path: Path
) -> None:
    keeper = keep(shell(tmp_path, "echo no such table >&2; exit 3", ready=lambda: False))
    assert not keeper.wait_ready(WAIT_SECONDS)
    assert keeper.early_ends >= FAILING_AFTER
    assert describe(keeper) == "ended with code 3 (no such table)"


def test_a_role_that_cannot_be_launched_is_told(keep: Callable[[CommandRole], Keeper], tmp_path: Path) -> None:
    role = shell(tmp_path, "")
    role.log_file = tmp_path / "absent" / "role.log"
    keeper = keep(role)
    assert not keeper.wait_ready(WAIT_SECONDS)
    assert "No such file" in describe(keeper)


def test_sigterm_lets_a_role_end_in_its_own_way(keep: Callable[[CommandRole], Keeper], tmp_path: Path) -> None:
    script = f"trap 'echo drained > {tmp_path}/end; exit 0' TERM; echo up > {tmp_path}/up; while :; do sleep 0.05; done"
    keeper = keep(shell(tmp_path, script, ready=(tmp_path / "up").exists))
    assert keeper.wait_ready(WAIT_SECONDS)
    keeper.stop()
    keeper.finish()
    assert (tmp_path / "end").read_text() == "drained\n"
    assert (keeper.state().state, keeper.state().pid, keeper.state().restarts) == ("stopped", None, 0)


def test_a_role_that_does_not_end_is_killed_with_all_it_started(
    keep: Callable[[CommandRole], Keeper], tmp_path: Path
) -> None:
    script = f"trap '' TERM; sleep 60 & echo $! > {tmp_path}/child; while :; do sleep 0.05; done"
    keeper = keep(shell(tmp_path, script, ready=(tmp_path / "child").exists, stop_seconds=0.3))
    assert keeper.wait_ready(WAIT_SECONDS)
    until(lambda: (tmp_path / "child").read_text().strip() != "")
    child = psutil.Process(int((tmp_path / "child").read_text()))
    keeper.stop()
    keeper.finish()
    assert keeper.state().state == "stopped"
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_what_a_dead_role_leaves_behind_is_ended_before_it_starts_again(
    keep: Callable[[CommandRole], Keeper], tmp_path: Path
) -> None:
    script = f"sleep 60 & echo $! >> {tmp_path}/children; wait"
    keeper = keep(shell(tmp_path, script, ready=(tmp_path / "children").exists))
    assert keeper.wait_ready(WAIT_SECONDS)
    until(lambda: (tmp_path / "children").read_text().strip() != "")
    child = psutil.Process(int((tmp_path / "children").read_text().split()[0]))
    os.kill(keeper.state().pid or 0, signal.SIGKILL)
    until(lambda: keeper.state().restarts == 1)
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def settings(folder: Path) -> StackSettings:
    return StackSettings.from_env(folder, slots=0, synthetic_slots=0, env={})


def stack_state(folder: Path, *roles: RoleState) -> StackState:
    pid = os.getpid()
    return StackState(
        state="accepting",
        pid=pid,
        created=state.created(pid) or 0.0,
        started_at="2026-01-01T00:00:00.000+00:00",
        data_dir=str(folder),
        gateway="http://127.0.0.1:1",
        kafka=None,
        key_file="",
        clickhouse_url_file="",
        objects_url="",
        roles=roles,
    )


def test_two_stacks_on_one_directory_are_refused(tmp_path: Path) -> None:
    with Stack(settings(tmp_path)):
        state.save(tmp_path, stack_state(tmp_path))
        with pytest.raises(StackRunningError, match=rf"process {os.getpid()}"), Stack(settings(tmp_path)):
            pass
    with Stack(settings(tmp_path)):
        pass


def test_stack_json_is_read_back_and_is_not_believed_when_its_supervisor_is_gone(tmp_path: Path) -> None:
    assert state.running(tmp_path) is None
    here = stack_state(tmp_path)
    state.save(tmp_path, here)
    assert state.running(tmp_path) == here
    assert (tmp_path / "stack.json").stat().st_mode & 0o777 == 0o600
    # The pid lives, but it is another process's now.
    state.save(tmp_path, msgspec.structs.replace(here, created=here.created - 100))
    assert state.running(tmp_path) is None
    (tmp_path / "stack.json").write_text("{")
    assert state.load(tmp_path) is None


def test_leftovers_of_a_dead_supervisor_are_ended_and_strangers_are_not(tmp_path: Path) -> None:
    left = subprocess.Popen(["/bin/sleep", "60"], start_new_session=True)
    stranger = subprocess.Popen(["/bin/sleep", "60"], start_new_session=True)
    try:
        roles = (
            RoleState(name="left", state="running", pid=left.pid, created=state.created(left.pid), log_file=""),
            RoleState(name="stranger", state="running", pid=stranger.pid, created=1.0, log_file=""),
        )
        assert state.end_leftovers(stack_state(tmp_path, *roles)) == ["left"]
        assert left.wait(5) == -signal.SIGKILL
        assert stranger.poll() is None
    finally:
        for process in (left, stranger):
            process.kill()
            process.wait()


def test_secrets_are_made_once_and_are_private(tmp_path: Path) -> None:
    layout = Layout(root=tmp_path / "stack")
    layout.make()
    key = layout.server_key_file.read_text()
    assert len(bytes.fromhex(key.strip())) == 32
    assert layout.server_key_file.stat().st_mode & 0o777 == 0o600
    assert layout.root.stat().st_mode & 0o777 == 0o700
    layout.make()
    assert layout.server_key_file.read_text() == key


def test_ports_are_kept_and_an_asked_one_that_is_taken_is_refused(tmp_path: Path) -> None:
    claims = tmp_path / "claims"
    chosen = Ports.choose(tmp_path, claims, ports.free_port())
    chosen.release()
    again = Ports.choose(tmp_path, claims, None)
    again.release()
    assert (again.gateway, again.clickhouse) == (chosen.gateway, chosen.clickhouse)
    with subprocess.Popen(
        [sys.executable, "-c", LISTEN.format(port=chosen.gateway)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as server:
        assert server.stdout is not None
        server.stdout.readline()
        with pytest.raises(StackPortTakenError, match="MESHYARD_GATEWAY_PORT"):
            Ports.choose(tmp_path, claims, chosen.gateway)
        other = Ports.choose(tmp_path, claims, None)
        other.release()
        assert other.gateway != chosen.gateway
        server.communicate(b"")


def test_two_stacks_that_start_at_once_do_not_choose_the_same_port(tmp_path: Path) -> None:
    claims = tmp_path / "claims"
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one = Ports.choose(tmp_path / "one", claims, None)
    two = Ports.choose(tmp_path / "two", claims, None)  # nobody listens on the first one's ports yet
    try:
        assert one.gateway != two.gateway
        with pytest.raises(StackPortTakenError):
            Ports.choose(tmp_path / "two", claims, one.gateway)
    finally:
        one.release()
        two.release()


def test_a_role_is_not_ready_while_another_program_answers_at_its_port(
    keep: Callable[[CommandRole], Keeper], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        role = shell(tmp_path, "exec sleep 60")
        role.port = server.getsockname()[1]
        keeper = keep(role)
        assert not keeper.wait_ready(1.0)
        assert keeper.state().state == "starting"
        assert listens(os.getpid(), role.port)


LISTEN = "import socket, sys; s = socket.create_server(('127.0.0.1', {port})); print(flush=True); sys.stdin.read()"


def test_probes_of_a_server_that_is_not_there_say_no() -> None:
    port = ports.free_port()
    assert gateway_says(port, "/healthz") == (0, "the gateway does not answer")
    assert not clickhouse_answers(port, "user", "password")


def test_the_clickhouse_probe_knows_a_user_from_a_stranger(clickhouse_url: str) -> None:
    from urllib.parse import urlsplit

    url = urlsplit(clickhouse_url)
    assert clickhouse_answers(url.port or 0, url.username or "", url.password or "")
    assert not clickhouse_answers(url.port or 0, "nobody", "wrong")
