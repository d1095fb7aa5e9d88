"""The worker's handle on its child process: start, messages, death."""

import os
import signal
import socket
import subprocess
import sys
from typing import Final

from inference.channel import Channel, ChannelBroken, ChannelClosed, Message

# What a child gets to end by itself after its channel has closed.
LAST_WORDS_SECONDS: Final = 1.0


class ChildDied(Exception):
    """The child process is gone. how: for people, for example `killed by SIGSEGV`."""

    def __init__(self, how: str) -> None:
        self.how = how
        super().__init__(how)


class ChildProcess:
    """A running child. Start it from the worker's main thread: the child dies with the thread that started it."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 (our own module)
                [sys.executable, "-m", "inference.child", str(theirs.fileno()), str(os.getpid())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr,  # what libraries print belongs to the log
                process_group=0,  # a group of its own, which ends with it
            )
        self._channel = Channel(ours)
        self._ended: str | None = None

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def fileno(self) -> int:
        """For select: readable when the child has spoken or is gone."""
        return self._channel.fileno()

    def send(self, *messages: Message) -> None:
        """Raises ChildDied."""
        try:
            self._channel.send(*messages)
        except ChannelClosed:
            raise ChildDied(self._reap(LAST_WORDS_SECONDS)) from None

    def receive(self, timeout_seconds: float) -> Message | None:
        """The next message, None when there is none in time. Raises ChildDied."""
        try:
            return self._channel.receive(timeout_seconds)
        except ChannelClosed:
            raise ChildDied(self._reap(LAST_WORDS_SECONDS)) from None
        except ChannelBroken as error:
            self._reap(0)
            raise ChildDied(str(error)) from error

    def kill(self) -> None:
        """Ends it at once; one that is dead is no error."""
        self._reap(0)

    def _reap(self, grace_seconds: float) -> str:
        if self._ended is not None:  # its process id may be another's by now
            return self._ended
        try:
            # A dying process closes its channel first: our own signal shall not hide the reason.
            code = self._process.wait(grace_seconds)
            self._kill_group()
        except subprocess.TimeoutExpired:
            self._kill_group()
            code = self._process.wait()
        self._channel.close()
        self._ended = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return self._ended

    def _kill_group(self) -> None:
        """With the child end the processes that it started."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def rss_bytes(pid: int) -> int:
    """Resident memory of a process, 0 when it is gone."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0
