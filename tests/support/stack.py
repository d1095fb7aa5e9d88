"""A whole local stack as a child process, driven through the command line as a user would."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

START_SECONDS = 120.0
STOP_SECONDS = 90.0
MESHYARD = (sys.executable, "-m", "gateway.cli.__main__")


def meshyard(*arguments: str, timeout_seconds: float = 120.0) -> subprocess.CompletedProcess[str]:
    """Run a command of ours to its end."""
    return subprocess.run(
        [*MESHYARD, *arguments], capture_output=True, text=True, timeout=timeout_seconds, env=environment()
    )


def environment(own: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment (already scrubbed of MESHYARD_*), wide enough for tables."""
    return {**os.environ, "COLUMNS": "200", **(own or {})}


def _heed_ctrl_c() -> None:
    """A shell that starts the tests in the background has them ignore SIGINT, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class RunningStack:
    """`meshyard up` on a directory. Use it as a context manager; leaving it stops the stack in an orderly way."""

    def __init__(self, data_dir: Path, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        self.data_dir = data_dir
        self._arguments = arguments
        self._env = env
        self.log_file = data_dir.with_name(f"{data_dir.name}.up.log")
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "RunningStack":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.stop()

    def start(self) -> None:
        """Start it and wait until it accepts and its workers are ready."""
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [*MESHYARD, "up", "--data-dir", str(self.data_dir), *self._arguments],
                stdout=log,
                stderr=log,
                env=environment(self._env),
                preexec_fn=_heed_ctrl_c,
            )
        process = self.process
        self.until(lambda: process.poll() is not None or self.is_warm(), START_SECONDS)
        if process.poll() is not None:
            raise RuntimeError(f"`meshyard up` ended with {process.returncode}: {self.log_file.read_text()[-2000:]}")

    def is_warm(self) -> bool:
        """Whether every worker of the stack that runs now has joined."""
        state = self.state()
        process = self.process
        return process is not None and state.get("pid") == process.pid and state.get("warm_seconds") is not None

    def state(self) -> dict[str, Any]:
        """`stack.json`; empty while there is none."""
        try:
            record: dict[str, Any] = json.loads((self.data_dir / "stack.json").read_text())
        except FileNotFoundError:
            return {}
        return record

    def role(self, name: str) -> dict[str, Any]:
        """What `stack.json` says of a role."""
        return next(role for role in self.state()["roles"] if role["name"] == name)

    def run(self, command: str, *arguments: str, timeout_seconds: float = 120.0) -> str:
        """Run a command against this stack; returns what it printed. Raises AssertionError when it fails."""
        done = meshyard(command, *arguments, "--data-dir", str(self.data_dir), timeout_seconds=timeout_seconds)
        assert done.returncode == 0, f"meshyard {command}: {done.returncode}: {done.stderr}"
        return done.stdout

    def kill_role(self, name: str) -> int:
        """kill -9 a role; returns the pid that it had."""
        pid = int(self.role(name)["pid"])
        os.kill(pid, signal.SIGKILL)
        return pid

    def until(self, condition: Callable[[], bool], timeout_seconds: float = 60.0) -> None:
        """Wait until a condition holds."""
        deadline = time.monotonic() + timeout_seconds
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {timeout_seconds} s; the stack's log ends with {self._last_lines()}")
            time.sleep(0.05)

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def kill(self) -> None:
        """kill -9 of the supervisor."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def _last_lines(self) -> Sequence[str]:
        return self.log_file.read_text(errors="replace").splitlines()[-5:]
