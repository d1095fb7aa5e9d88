"""The slot's child process: it holds the libraries and models, runs stages, and talks to its worker alone.

`python -m inference.child FD PARENT_PID`. One thread works; a second one wakes every few seconds to tell that a long
stage still lives. The child dies with its worker.
"""

import ctypes
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from inference.channel import (
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
from inference.stages.base import Stage, StageCanceled, StageError, StageInput
from inference.stages.factory import load_stage

HEARTBEAT_SECONDS: Final = 2.0
PROGRESS_SECONDS: Final = 0.2
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


class Child:
    """Serves one channel until it closes."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._send_lock = threading.Lock()
        self._stages: dict[tuple[str, str], Stage] = {}
        self._running: int | None = None

    def serve(self) -> int:
        """Answers messages until the worker is gone; the exit code."""
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()
        while True:
            match self._channel.receive():
                case Run() as run:
                    self._running = run.run_id
                    answer = self._run(run)
                    self._running = None
                    self.send(answer)
                case Load(serves=serves):
                    try:
                        self._load(serves)
                    except Exception as error:  # whatever a library raises on import: the worker must hear of it
                        traceback.print_exc()
                        self.send(LoadFailed(message=f"{type(error).__name__}: {error}"))
                        return 1
                    self.send(Ready(resource_class=_resource_class()))
                case _:
                    pass  # a cancel that came after the end of its run

    def send(self, message: Message) -> None:
        """Sends from either thread."""
        with self._send_lock:
            self._channel.send(message)

    def look_for_cancel(self, run_id: int) -> None:
        """Raises StageCanceled when the worker canceled this run."""
        while (message := self._channel.receive(0)) is not None:
            if isinstance(message, Cancel) and message.run_id == run_id:
                raise StageCanceled

    def _load(self, serves: tuple[str, ...]) -> None:
        for name in serves:
            pipeline_id, _, stage = name.partition("/")
            self._stages[pipeline_id, stage] = load_stage(pipeline_id, stage)

    def _run(self, run: Run) -> Done | Failed | Stopped:
        try:
            stage = self._stages.get((run.pipeline_id, run.stage))
            if stage is None:
                stage = self._stages[run.pipeline_id, run.stage] = load_stage(run.pipeline_id, run.stage)
            output = stage.run(_stage_input(run), ChannelContext(self, run.run_id))
        except StageCanceled:
            return Stopped(run_id=run.run_id)
        except StageError as error:
            return Failed(run_id=run.run_id, error_class=error.error_class, message=error.message)
        except ChannelClosed:
            raise
        except Exception as error:
            traceback.print_exc()
            if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's, not imported
                return Failed(run_id=run.run_id, error_class="oom", message=f"stage {run.stage} ran out of memory")
            message = f"stage {run.stage} ended by a defect ({type(error).__name__}); the slot's log has the details"
            return Failed(run_id=run.run_id, error_class="crash", message=message)
        made = tuple(MadeArtefact(role=a.role, path=str(a.path), media_type=a.media_type) for a in output.artefacts)
        return Done(run_id=run.run_id, artefacts=made, figures=_plain(output.figures))

    def _beat(self) -> None:
        last: int | None = None
        while True:
            time.sleep(HEARTBEAT_SECONDS)
            run_id = self._running
            if run_id is not None and run_id == last:
                try:
                    self.send(Heartbeat(run_id=run_id))
                except ChannelClosed:
                    return
            last = run_id


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
