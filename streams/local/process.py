"""Start and stop child processes."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

LAUNCHER = Path(__file__).with_name("launcher.py")


def spawn(
    arguments: Sequence[str],
    *,
    environment: Mapping[str, str],
    log_file: Path,
    with_parent: bool,
    inherited: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own, its output appended to `log_file`.

    With `with_parent` it dies with the *thread* that calls this, so call it from one that lives as long as
    the child shall. `inherited` are file descriptors that the child keeps. `arguments[0]` is an absolute path.
    """
    command = list(arguments)
    if with_parent:
        command = [sys.executable, "-I", "-S", str(LAUNCHER), str(os.getpid()), *command]
    with log_file.open("ab") as log:
        return subprocess.Popen(  # noqa: S603 (arguments are ours)
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=dict(environment),
            pass_fds=tuple(inherited),
            start_new_session=True,
        )


def stop(process: subprocess.Popen[bytes], timeout_seconds: float) -> int:
    """End a process: SIGTERM, and SIGKILL when it takes longer than `timeout_seconds`. Returns its exit code."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()
