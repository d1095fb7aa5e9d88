"""Start a program that ends when its parent ends: `python -I -S launcher.py PARENT_PID PROGRAM ARGUMENT...`.

Linux sends the signal of PR_SET_PDEATHSIG when the thread that started this process is gone, also after
kill -9, and the setting outlives exec. It is set here and not between fork and exec of the parent, because
Python code that runs there can deadlock in a parent with threads.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Bind this process to its parent and become the program."""
    parent_pid, program = int(sys.argv[1]), sys.argv[2:]
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:  # it died before the signal was set
        sys.exit(1)
    os.execv(program[0], program)  # noqa: S606 (no shell is wanted)


if __name__ == "__main__":
    main()
