"""The local stack as a user runs it: one `meshyard up`, every command, kill -9 of its parts."""

import json
import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.stack import RunningStack, meshyard

ROLES = {"broker", "clickhouse", "streams", "gateway", "worker-0", "sink"}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """A stack with one worker for synthetic jobs, without torch."""
    folder = tmp_path_factory.mktemp("stack") / "data"
    env = {"MESHYARD_GATEWAY_PORT": ""}
    with RunningStack(folder, "--slots", "0", "--synthetic-slots", "1", env=env) as running:
        yield running


def test_status_tells_every_role(stack: RunningStack) -> None:
    status = json.loads(stack.run("status", "--json"))
    assert status["state"] == "accepting"
    assert {role["name"] for role in status["roles"]} == ROLES
    for role in status["roles"]:
        assert role["state"] == "running", role
        assert psutil.pid_exists(role["pid"])
        assert role["memory_bytes"] > 0
        assert Path(role["log_file"]).exists()
    assert "worker-0" in stack.run("status")


def test_secrets_are_the_owners_alone(stack: RunningStack) -> None:
    for file in (stack.data_dir / "secrets").iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    key = Path(stack.state()["key_file"]).read_text().strip()
    told = stack.log_file.read_text() + "".join(file.read_text() for file in (stack.data_dir / "logs").iterdir())
    assert key not in told
    assert (stack.data_dir / "secrets" / "clickhouse.password").read_text().strip() not in told


def test_a_job_goes_all_the_way_and_is_told_by_every_command(stack: RunningStack) -> None:
    job = json.loads(stack.run("submit", "a chair", "--pipeline", "synthetic", "--wait", "--json"))
    assert job["state"] == "succeeded"
    assert job["id"] in stack.run("jobs")
    assert "succeeded" in stack.run("jobs", job["id"])
    assert json.loads(stack.run("jobs", job["id"], "--json"))["id"] == job["id"]

    query = f"SELECT state, seconds > 0 AS timed FROM jobs WHERE job_id = '{job['id']}'"
    stack.until(lambda: "succeeded" in stack.run("sql", query))
    assert json.loads(stack.run("sql", query, "--format", "json")) == {"state": "succeeded", "timed": 1}
    assert stack.run("sql", query, "--format", "csv") == "state,timed\nsucceeded,1\n"


def test_a_job_that_a_bad_version_failed_is_finished_by_a_good_one(stack: RunningStack) -> None:
    def submit() -> dict[str, Any]:
        """A job that fails in its last stage as long as version 1 serves that."""
        fails = ("--parameter", "fail@1=permanent:texture:*")
        done = meshyard("submit", "a", "--pipeline", "synthetic", *fails, "--wait", "--json", *data_dir)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    data_dir = ("--data-dir", str(stack.data_dir))
    assert json.loads(stack.run("load", "--json"))["domain"] == "main"
    job = submit()
    assert job["state"] == "failed"
    this_job = ("--filter", f"job={job['id']}", "--json")
    [letter] = json.loads(stack.run("dlq", "list", *this_job))
    assert (letter["stage"], letter["reason"]) == ("texture", "permanent")

    stack.run("routing", "set", "synthetic/texture", "1=1", "2=0", "--no-guard")
    stack.run("routing", "promote", "synthetic/texture", "2")
    stack.until(lambda: submit()["state"] == "succeeded")  # the rule is in force
    again = stack.run("dlq", "retry", letter["letter"]).split()[-1]
    stack.until(lambda: meshyard("jobs", again, *data_dir).returncode == 0)
    stack.until(lambda: json.loads(stack.run("jobs", again, "--json"))["finished_at"] is not None)
    repeated = json.loads(stack.run("jobs", again, "--json"))
    assert repeated["state"] == "succeeded"
    assert repeated["retry_of"] == job["id"]
    assert [stage["attempt"] for stage in repeated["stages"]] == [0, 0, 1]  # the first two were not run again
    assert json.loads(stack.run("dlq", "list", *this_job)) == []


def test_the_same_key_makes_one_job(stack: RunningStack) -> None:
    same = ("submit", "a chair", "--pipeline", "synthetic", "--seed", "1", "--idempotency-key", "once")
    assert stack.run(*same) == stack.run(*same)


def test_a_failed_job_is_told_and_a_canceled_one_stops(stack: RunningStack) -> None:
    data_dir = ("--data-dir", str(stack.data_dir))
    failed = meshyard(
        "submit", "x", "--pipeline", "synthetic", "--parameter", "fail=permanent:texture:1", "--wait", *data_dir
    )
    assert failed.returncode == 1
    assert " failed: " in failed.stdout
    long = stack.run("submit", "x", "--pipeline", "synthetic", "--parameter", "seconds=600").strip()
    stack.run("jobs", long, "--cancel")
    stack.until(lambda: json.loads(stack.run("jobs", long, "--json"))["state"] == "canceled")


def test_topics_are_the_catalogues(stack: RunningStack) -> None:
    listed = stack.run("topics", "list")
    assert "requests.text-to-3d" in listed
    assert "absent" not in listed
    assert "0 created" in stack.run("topics", "create")


def test_sql_cannot_write_and_a_mistake_is_one_line(stack: RunningStack) -> None:
    for query in ("DROP TABLE job_events", "SELECT * FROM nowhere"):
        refused = meshyard("sql", query, "--data-dir", str(stack.data_dir))
        assert refused.returncode == 1
        assert refused.stderr.startswith("meshyard sql: ClickHouse error ")
        assert refused.stderr.count("\n") == 1


def test_a_second_stack_on_the_same_directory_is_refused(stack: RunningStack) -> None:
    second = meshyard("up", "--data-dir", str(stack.data_dir))
    assert second.returncode == 1
    assert "runs on" in second.stderr
    assert "Traceback" not in second.stderr


@pytest.mark.parametrize("role", ["gateway", "worker-0", "sink", "streams"])
def test_a_killed_role_comes_back(stack: RunningStack, role: str) -> None:
    before = stack.role(role)
    stack.kill_role(role)
    stack.until(lambda: stack.role(role)["restarts"] > before["restarts"] and stack.role(role)["state"] == "running")
    job = json.loads(stack.run("submit", "a chair", "--pipeline", "synthetic", "--wait", "--json"))
    assert job["state"] == "succeeded"


def test_after_kill_9_of_the_supervisor_nothing_is_left_and_the_next_start_has_everything(stack: RunningStack) -> None:
    job = stack.run("submit", "a chair", "--pipeline", "synthetic", "--wait").split()[0]
    address = stack.state()["gateway"]
    processes = [psutil.Process(role["pid"]) for role in stack.state()["roles"]]
    stack.kill()
    assert psutil.wait_procs(processes, timeout=20)[1] == []
    assert meshyard("status", "--data-dir", str(stack.data_dir)).returncode == 1

    stack.start()
    assert stack.state()["gateway"] == address
    assert json.loads(stack.run("jobs", job, "--json"))["state"] == "succeeded"
    stack.until(lambda: {role["state"] for role in stack.state()["roles"]} == {"running"})
    stored = stack.run("sql", f"SELECT state FROM jobs WHERE job_id = '{job}'", "--format", "csv")
    assert stored == "state\nsucceeded\n"
    assert stack.run("submit", "a chair", "--pipeline", "synthetic", "--wait").endswith("succeeded\n")


def test_ctrl_c_stops_everything_in_order(stack: RunningStack) -> None:
    processes = [psutil.Process(role["pid"]) for role in stack.state()["roles"]]
    assert stack.process is not None
    os.kill(stack.process.pid, signal.SIGINT)
    assert stack.process.wait(90) == 0
    assert not [process for process in processes if process.is_running()]
    state = stack.state()
    assert state["state"] == "stopped"
    assert {role["state"] for role in state["roles"]} == {"stopped"}
    assert "role killed" not in stack.log_file.read_text()
