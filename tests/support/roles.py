"""Roles as child processes, as a supervisor starts them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

WAIT_SECONDS = 60.0


class Role:
    """`python -m <arguments>` with an environment of its own and a log file."""

    def __init__(self, arguments: list[str], env: Mapping[str, str], log_file: Path) -> None:
        self.arguments = arguments
        self.env = {**{k: v for k, v in os.environ.items() if not k.startswith("MESHYARD_")}, **env}
        self.log_file = log_file
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts the process; its log goes on where the last one ended."""
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *self.arguments], env=self.env, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    def kill(self) -> None:
        """kill -9, and waits until the process is gone."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(WAIT_SECONDS)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(WAIT_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def log(self) -> str:
        """What it has logged so far, over all its lives."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""


def wait_until(condition: Callable[[], bool], what: str, seconds: float = WAIT_SECONDS) -> None:
    """Polls until the condition holds. Raises TimeoutError that names what was waited for."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        time.sleep(0.05)
