"""Runs one item at a time in the child, with its time limits, its cancel and its files.

The runner decides how an attempt ends; who hears of it is the worker's business.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from inference.artefacts import ArtefactError, Scratch, fetch_inputs, store_results
from inference.channel import Cancel, Done, Heartbeat, Load, LoadFailed, Message, Progress, Ready, Run, Stopped
from inference.channel import Failed as StageFailed
from inference.outcome import Canceled, Ending, Failed, Finished, Succeeded
from inference.process import ChildDied, ChildProcess
from inference.settings import WorkerSettings
from inference.work import WorkItem
from streams.clock import Clock
from streams.objects import ObjectStore

log = structlog.get_logger(__name__)

# A child that dies while it loads is started again so often, then the worker gives up.
LOAD_TRIES: Final = 3


class ChildWillNotLoad(RuntimeError):
    """The child cannot load its stages."""

    def __init__(self, detail: str) -> None:
        self.detail = detail
        super().__init__(f"{self.__doc__} {detail}")


@dataclass(kw_only=True)
class _Current:
    """The attempt in the child's hands. Times are monotonic seconds, started_at ms since 1970."""

    item: WorkItem
    run_id: int
    started_at: int
    deadline: float
    heard_at: float
    kill_at: float | None = None  # set by a cancel


class Runner:
    """Owns the child process and the scratch folder. Not for several threads.

    on_progress(fraction, message) is called from `step`.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        store: ObjectStore,
        clock: Clock,
        on_progress: Callable[[float, str], None],
    ) -> None:
        self._settings = settings
        self._store = store
        self._clock = clock
        self._on_progress = on_progress
        self._scratch = Scratch(settings.data_dir / "scratch" / f"slot-{settings.slot}")
        self._run_id = 0
        self._load_tries = 0
        self._current: _Current | None = None
        self._ready = False
        self.resource_class: str | None = None
        self._start_child()

    @property
    def ready(self) -> bool:
        """Whether the child has loaded."""
        return self._ready

    @property
    def item(self) -> WorkItem | None:
        """What runs now."""
        return self._current.item if self._current else None

    @property
    def child_pid(self) -> int:
        """Process id of the child."""
        return self._child.pid

    def start(self, item: WorkItem) -> Finished | None:
        """Begins an item (the child is ready and idle). Returns its end at once when it cannot even begin."""
        self._run_id += 1
        began, now = self._clock.now_ms(), self._clock.monotonic_seconds()
        self._current = _Current(
            item=item,
            run_id=self._run_id,
            started_at=began,
            deadline=now + self._settings.stage_timeout_seconds,
            heard_at=now,
        )
        try:
            files = fetch_inputs(self._store, item.artefacts, self._scratch.inputs) if item.artefacts else {}
            self._child.send(
                Run(
                    run_id=self._run_id,
                    pipeline_id=item.pipeline_id,
                    job_id=item.job_id,
                    stage=item.stage,
                    attempt=item.attempt,
                    prompt=item.prompt,
                    seed=item.seed,
                    quality=item.quality,
                    formats=item.formats,
                    parameters=item.parameters,
                    inputs={role: str(path) for role, path in files.items()},
                    out_dir=str(self._scratch.results),
                )
            )
        except ArtefactError as error:
            return self._end(Failed(error_class=error.error_class, message=error.message))
        except OSError:
            log.exception("scratch_failed")
            return self._end(Failed(error_class="transient", message="the slot's disk took no files"))
        except ChildDied as death:
            return self._died(death)
        return None

    def cancel(self) -> None:
        """Asks the running stage to stop; it is killed when it does not in time."""
        current = self._current
        if current is None or current.kill_at is not None:
            return
        current.kill_at = self._clock.monotonic_seconds() + self._settings.cancel_grace_seconds
        try:
            self._child.send(Cancel(run_id=current.run_id))
        except ChildDied:
            current.kill_at = float("-inf")  # the next step finds it dead

    def step(self, timeout_seconds: float) -> Finished | None:
        """Waits for the child's next word, at most so long. Returns the running item's end, None if it goes on.

        Raises ChildWillNotLoad.
        """
        try:
            message = self._child.receive(timeout_seconds)
        except ChildDied as death:
            return self._died(death)
        finished = self._hear(message) if message is not None else None
        return finished or self._check_limits()

    def abandon(self) -> None:
        """Ends the running item without an outcome: nobody waits for it any more."""
        if self._current is None:
            return
        log.warning("abandoned", dispatch_id=self._current.item.dispatch_id)
        self._current = None
        self._child.kill()
        self._start_child()

    def close(self) -> None:
        """Ends the child and removes the files."""
        self._child.kill()
        self._scratch.close()

    def _hear(self, message: Message) -> Finished | None:
        current = self._current
        match message:
            case Ready(resource_class=resource_class):
                self._ready = True
                self._load_tries = 0
                self.resource_class = self._settings.resource_class or resource_class
                log.info("child_ready", seconds=round(time.monotonic() - self._started, 3), pid=self._child.pid)
            case LoadFailed(message=text):
                raise ChildWillNotLoad(text)
            case Progress(run_id=run_id) | Heartbeat(run_id=run_id) if current and run_id == current.run_id:
                current.heard_at = self._clock.monotonic_seconds()
                if isinstance(message, Progress):
                    self._on_progress(message.fraction, message.message)
            case Done(run_id=run_id) if current and run_id == current.run_id:
                return self._end(self._store_results(current, message))
            case StageFailed(run_id=run_id) if current and run_id == current.run_id:
                canceled = current.kill_at is not None
                return self._end(
                    Canceled() if canceled else Failed(error_class=message.error_class, message=message.message)
                )
            case Stopped(run_id=run_id) if current and run_id == current.run_id:
                return self._end(Canceled())
            case Progress() | Heartbeat():
                pass  # the last word of a run that has ended
            case _:
                log.warning("child_said_something_odd", kind=type(message).__name__)
        return None

    def _store_results(self, current: _Current, done: Done) -> Ending:
        try:
            made = store_results(self._store, current.item, done.artefacts, done.figures, self._scratch.results)
        except ArtefactError as error:
            log.warning("results_not_stored", dispatch_id=current.item.dispatch_id, exc_info=True)
            return Failed(error_class=error.error_class, message=error.message)
        return Succeeded(artefacts=made)

    def _check_limits(self) -> Finished | None:
        now = self._clock.monotonic_seconds()
        current = self._current
        if current is None:
            if not self._ready and time.monotonic() - self._started > self._settings.load_timeout_seconds:
                raise ChildWillNotLoad(f"not ready after {self._settings.load_timeout_seconds:.0f} s")
            return None
        ending: Ending
        if current.kill_at is not None and now >= current.kill_at:
            ending = Canceled()
        elif now >= current.deadline:
            limit = self._settings.stage_timeout_seconds
            ending = Failed(error_class="timeout", message=f"stage {current.item.stage} took longer than {limit:.0f} s")
        elif now - current.heard_at >= self._settings.silence_seconds:
            ending = Failed(error_class="timeout", message=f"stage {current.item.stage} hung")
        else:
            return None
        log.warning("child_killed", dispatch_id=current.item.dispatch_id, reason=type(ending).__name__)
        self._child.kill()
        finished = self._end(ending)
        self._start_child()
        return finished

    def _died(self, death: ChildDied) -> Finished | None:
        current = self._current
        log.warning("child_died", how=death.how, dispatch_id=current.item.dispatch_id if current else None)
        finished = None
        if current is not None:
            message = f"the process of stage {current.item.stage} died ({death.how})"
            canceled = current.kill_at is not None
            finished = self._end(Canceled() if canceled else Failed(error_class="crash", message=message))
        elif not self._ready and self._load_tries >= LOAD_TRIES:
            raise ChildWillNotLoad(death.how)
        self._start_child()
        return finished

    def _end(self, ending: Ending) -> Finished:
        current = self._current
        assert current is not None
        self._current = None
        self._scratch.clear()
        return Finished(item=current.item, started_at=current.started_at, ended_at=self._clock.now_ms(), ending=ending)

    def _start_child(self) -> None:
        self._ready = False
        self._load_tries += 1
        self._started = time.monotonic()
        self._scratch.renew()
        self._child = ChildProcess()
        try:
            self._child.send(Load(serves=self._settings.serves))
        except ChildDied as death:
            log.warning("child_died", how=death.how, dispatch_id=None)  # `step` finds it dead and counts
