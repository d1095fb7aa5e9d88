"""The slot's child process: it holds the libraries and models, runs stages, and talks to its worker alone.

`python -m inference.child FD PARENT_PID`. One thread works: it takes runs in the order in which they came, one after
another; runs that only wait do so beside the others. A second thread wakes every few seconds to tell that a long stage
still lives. The child dies with its worker.
"""

import ctypes
import heapq
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from inference.channel import (
    Begun,
    Cancel,
    Channel,
    ChannelClosed,
    Done,
    Failed,
    Heartbeat,
    Load,
    LoadFailed,
    MadeArtefact,
    Message,
    Progress,
    Ready,
    Run,
    Stopped,
)
from inference.stages.base import Stage, StageCanceled, StageError, StageInput, StageOutput, WaitingStage
from inference.stages.factory import load_stage

HEARTBEAT_SECONDS: Final = 2.0
PROGRESS_SECONDS: Final = 0.2
# How often a run that waits is spoken of, when it is alone; of many that wait, each more seldom.
WAITING_WORD_SECONDS: Final = 0.5
_WAITS_A_WORD: Final = 16
# Answers of runs that end at once go out together, but not so late that the worker has nothing to do.
_ANSWERS_TOGETHER: Final = 16
_PR_SET_PDEATHSIG: Final = 1


class ChannelContext:
    """The StageContext of one run: progress goes out (a few a second), a cancel comes in."""

    def __init__(self, child: "Child", run_id: int) -> None:
        self._child = child
        self._run_id = run_id
        self._told_at = float("-inf")

    def progress(self, fraction: float, message: str) -> None:
        """Tells the worker. Raises StageCanceled."""
        self._child.look_for_cancel(self._run_id)
        now = time.monotonic()
        if now - self._told_at >= PROGRESS_SECONDS:
            self._told_at = now
            self._child.send(Progress(run_id=self._run_id, fraction=min(1.0, max(0.0, fraction)), message=message))


@dataclass(frozen=True, kw_only=True)
class _Loaded:
    """A stage, and the same as one whose runs may wait; None when they do not."""

    stage: Stage
    waiting: WaitingStage | None


@dataclass(frozen=True, kw_only=True)
class _Wait:
    """A run that waits until `due` (monotonic seconds)."""

    run: Run
    stage: WaitingStage
    stage_input: StageInput
    began: float
    due: float


class Child:
    """Serves one channel until it closes."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._send_lock = threading.Lock()
        self._unsent: list[Message] = []
        self._stages: dict[tuple[str, str, str | None], _Loaded] = {}
        # Runs by id, in the order of their coming; those that wait stand in `_waits` as well, by time.
        self._queue: dict[int, Run] = {}
        self._waiting: dict[int, _Wait] = {}
        self._waits: list[tuple[float, int]] = []
        self._word_at = 0.0
        self._busy = False

    def serve(self) -> int:
        """Answers messages until the worker is gone; the exit code."""
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()
        while True:
            pause = self._pause()
            if pause != 0:
                self.flush()
            message = self._channel.receive(pause)
            while message is not None:
                if not self._take_in(message):
                    return 1
                message = self._channel.receive(0)
            self._end_waits()
            if self._queue:
                run_id = next(iter(self._queue))
                self._begin(self._queue.pop(run_id))

    def send(self, message: Message) -> None:
        """Sends at once, from either thread, after what is unsent."""
        with self._send_lock:
            self._channel.send(*self._unsent, message)
            self._unsent.clear()

    def flush(self) -> None:
        """Sends what is unsent."""
        with self._send_lock:
            if self._unsent:
                self._channel.send(*self._unsent)
                self._unsent.clear()

    def look_for_cancel(self, run_id: int) -> None:
        """Raises StageCanceled when the worker canceled this run; other messages are kept for later."""
        while (message := self._channel.receive(0)) is not None:
            if isinstance(message, Cancel) and message.run_id == run_id:
                raise StageCanceled
            self._take_in(message)

    def _take_in(self, message: Message) -> bool:
        """Notes a message; False when it ends the child."""
        match message:
            case Run():
                self._queue[message.run_id] = message
                self._busy = True
            case Cancel(run_id=run_id):
                # The cancel of a run that has ended finds nothing.
                if self._queue.pop(run_id, None) is not None or self._waiting.pop(run_id, None) is not None:
                    self._answer(Stopped(run_id=run_id))
            case Load():
                try:
                    self._load(message)
                except Exception as error:  # whatever a library raises on import: the worker must hear of it
                    traceback.print_exc()
                    self.send(LoadFailed(message=f"{type(error).__name__}: {error}"))
                    return False
                self.send(Ready(resource_class=_resource_class()))
            case _:
                pass
        return True

    def _pause(self) -> float | None:
        """How long nothing is to be done unless a message comes; None: for ever."""
        if self._queue:
            return 0.0
        if not self._waiting:
            self._busy = False
            return None
        return max(0.0, min(self._waits[0][0], self._word_at) - time.monotonic())

    def _answer(self, message: Message) -> None:
        with self._send_lock:
            self._unsent.append(message)
        if len(self._unsent) >= _ANSWERS_TOGETHER:
            self.flush()

    def _load(self, load: Load) -> None:
        for name in load.serves:
            pipeline_id, _, stage = name.partition("/")
            versions = [v.partition("@")[2] for v in load.versions if v.partition("@")[0] == pipeline_id]
            for version in versions or (None,):
                self._stage(pipeline_id, stage, version)

    def _stage(self, pipeline_id: str, stage: str, version: str | None) -> _Loaded:
        found = self._stages.get((pipeline_id, stage, version))
        if found is None:
            made = load_stage(pipeline_id, stage, version)
            waiting = made if isinstance(made, WaitingStage) else None
            found = self._stages[pipeline_id, stage, version] = _Loaded(stage=made, waiting=waiting)
        return found

    # -- runs

    def _begin(self, run: Run) -> None:
        began = time.monotonic()
        try:
            loaded = self._stage(run.pipeline_id, run.stage, run.model_version)
            stage_input = _stage_input(run)
            wait = None if loaded.waiting is None else loaded.waiting.wait_seconds(stage_input)
        except Exception as error:
            self._answer(_failed(run, error, began))
            return
        if loaded.waiting is None or wait is None:
            self.send(Begun(run_id=run.run_id, alone=True))
            context = ChannelContext(self, run.run_id)
            self.send(_end(run, partial(loaded.stage.run, stage_input, context), began))
        elif wait <= 0:
            self._answer(_end(run, partial(loaded.waiting.finish, stage_input), began))
        else:
            self.send(Begun(run_id=run.run_id, alone=False))
            waits = _Wait(run=run, stage=loaded.waiting, stage_input=stage_input, began=began, due=began + wait)
            if not self._waiting:
                self._word_at = began + WAITING_WORD_SECONDS
            self._waiting[run.run_id] = waits
            heapq.heappush(self._waits, (waits.due, run.run_id))

    def _end_waits(self) -> None:
        now = time.monotonic()
        while self._waits and (self._waits[0][0] <= now or self._waits[0][1] not in self._waiting):
            wait = self._waiting.pop(heapq.heappop(self._waits)[1], None)
            if wait is not None:
                self._answer(_end(wait.run, partial(wait.stage.finish, wait.stage_input), wait.began))
        if self._waiting and now >= self._word_at:
            self._word_at = now + WAITING_WORD_SECONDS * max(1.0, len(self._waiting) / _WAITS_A_WORD)
            for run_id, wait in self._waiting.items():
                fraction = (now - wait.began) / (wait.due - wait.began)
                self._answer(Progress(run_id=run_id, fraction=min(1.0, fraction), message="waiting"))

    def _beat(self) -> None:
        while True:
            time.sleep(HEARTBEAT_SECONDS)
            if self._busy:
                try:
                    self.send(Heartbeat())
                except ChannelClosed:
                    return


def _end(run: Run, work: Callable[[], StageOutput], began: float) -> Done | Failed | Stopped:
    """Does the work and says how it ended."""
    try:
        output = work()
    except StageCanceled:
        return Stopped(run_id=run.run_id)
    except ChannelClosed:
        raise
    except Exception as error:
        return _failed(run, error, began)
    made = tuple(
        MadeArtefact(role=a.role, path=str(a.path), media_type=a.media_type, data=a.data) for a in output.artefacts
    )
    return Done(run_id=run.run_id, artefacts=made, figures=_plain(output.figures), seconds=time.monotonic() - began)


def _failed(run: Run, error: Exception, began: float) -> Failed:
    seconds = time.monotonic() - began
    if isinstance(error, StageError):
        return Failed(
            run_id=run.run_id,
            error_class=error.error_class,
            message=error.message,
            seconds=seconds,
            retry_after_seconds=error.retry_after_seconds,
        )
    traceback.print_exception(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's, not imported
        kind, message = "oom", f"stage {run.stage} ran out of memory"
    else:
        kind = "crash"
        message = f"stage {run.stage} ended by a defect ({type(error).__name__}); the slot's log has the details"
    return Failed(run_id=run.run_id, error_class=kind, message=message, seconds=seconds)


def _stage_input(run: Run) -> StageInput:
    return StageInput(
        job_id=run.job_id,
        stage=run.stage,
        attempt=run.attempt,
        prompt=run.prompt,
        seed=run.seed,
        quality=run.quality,
        formats=run.formats,
        parameters=run.parameters,
        inputs={role: Path(path) for role, path in run.inputs.items()},
        out_dir=Path(run.out_dir),
        model_version=run.model_version,
        texture_size=run.texture_size,
    )


def _plain(figures: Mapping[str, float | str | bool]) -> dict[str, float | str | bool]:
    # Numbers of numpy and torch do not travel.
    return {name: value if isinstance(value, bool | str) else float(value) for name, value in figures.items()}


def _resource_class() -> str:
    torch = sys.modules.get("torch")
    return "gpu" if torch is not None and torch.cuda.is_available() else "cpu"


def _die_with(parent_pid: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:  # it died before the line above
        os._exit(1)


def main(arguments: list[str]) -> int:
    """Runs the child. `arguments`: the channel's file descriptor, the worker's pid."""
    _die_with(int(arguments[1]))
    # Ctrl-C and a service manager's SIGTERM reach the whole group: the worker decides when the child ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        return Child(Channel(socket.socket(fileno=int(arguments[0])))).serve()
    except ChannelClosed:
        return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
