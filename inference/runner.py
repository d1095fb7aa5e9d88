"""Has items run in the child, several in hand at once, with their time limits, their cancels and their files.

The runner decides how an attempt ends; who hears of it is the worker's business. The child works on one run at a time
(which is then `alone`), takes the others in the order in which they came, and lets those that only wait do so beside
it. When the child must be killed for one run's sake, the others begin again in its successor: the same attempts.
"""

import time
from collections.abc import Iterable
from typing import Final, Protocol

import structlog

from inference.channel import Begun, Cancel, Done, Heartbeat, Load, LoadFailed, Message, Progress, Ready, Stopped
from inference.channel import Failed as StageFailed
from inference.outcome import Canceled, Ending, Failed, Finished
from inference.process import ChildDied, ChildProcess
from inference.settings import WorkerSettings
from inference.work import WorkItem
from inference.workplace import Attempt, Workplace
from schemas.codec import Codec
from streams.clock import Clock
from streams.objects import ObjectStore

log = structlog.get_logger(__name__)

# A child that dies while it loads is started again so often, then the worker gives up.
LOAD_TRIES: Final = 3
# How often runs that wait are looked at for their time limit.
LOOK_SECONDS: Final = 0.25


class ChildWillNotLoad(RuntimeError):
    """The child cannot load its stages."""

    def __init__(self, detail: str) -> None:
        self.detail = detail
        super().__init__(f"{self.__doc__} {detail}")


class Listener(Protocol):
    """Who hears what runs say before they end. Called from `step`."""

    def on_begun(self, item: WorkItem, at: int) -> None:
        """This item goes on for a while; at: ms since 1970. An item that ends at once is not said to have begun."""

    def on_progress(self, item: WorkItem, fraction: float, message: str) -> None:
        """How far it is, 0 to 1."""


class Runner:
    """Owns the child process and the scratch folder. Not for several threads."""

    def __init__(
        self, settings: WorkerSettings, store: ObjectStore, codec: Codec, clock: Clock, listener: Listener
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._listener = listener
        self._workplace = Workplace(settings, store, codec)
        self._run_id = 0
        self._load_tries = 0
        self._current: dict[int, Attempt] = {}
        self._by_dispatch: dict[str, int] = {}
        self._alone: int | None = None
        self._alone_ended = 0.0
        self._heard_at = 0.0
        self._look_at = 0.0
        # Canceled attempts to whose places the child may still write, by run.
        self._left: dict[int, Attempt] = {}
        self._ended: list[Finished] = []
        self._ready = False
        self.resource_class: str | None = None
        self._start_child()

    @property
    def ready(self) -> bool:
        """Whether the child has loaded."""
        return self._ready

    @property
    def free(self) -> int:
        """How many more items it takes."""
        return self._settings.capacity - len(self._current)

    @property
    def items(self) -> tuple[WorkItem, ...]:
        """What it has in hand."""
        return tuple(current.item for current in self._current.values())

    @property
    def has_ended(self) -> bool:
        """Whether `step` has ends to return without having to wait."""
        return bool(self._ended)

    @property
    def ends_soon(self) -> bool:
        """Whether more ends are about to come: the child is busy with items of which it has said nothing yet."""
        return bool(self._ended) or (
            self._alone is None and any(current.began is None for current in self._current.values())
        )

    @property
    def child_pid(self) -> int:
        """Process id of the child."""
        return self._child.pid

    def fileno(self) -> int:
        """For select: readable when `step` has something to hear; -1 when there is no need to wait.

        Another one after each death of the child.
        """
        return self._child.fileno()

    def start(self, items: Iterable[WorkItem]) -> None:
        """Hands over items, at most as many as are `free`; the child is ready. Their ends come from `step`."""
        made = [current for item in items if (current := self._prepare(item)) is not None]
        for current in made:
            self._current[current.run.run_id] = current
            self._by_dispatch[current.item.dispatch_id] = current.run.run_id
        self._hand_over(made)

    def cancel(self, dispatch_id: str) -> bool:
        """Asks for the stop of an item in hand; one at work is killed when it does not stop in time. False when the
        item is not here."""
        run_id = self._by_dispatch.get(dispatch_id)
        current = None if run_id is None else self._current[run_id]
        if current is None:
            return False
        if current.run.run_id != self._alone:
            self._drop(current, Canceled())
        elif current.kill_at is None:
            current.kill_at = self._clock.monotonic_seconds() + self._settings.cancel_grace_seconds
            self._tell_child(Cancel(run_id=current.run.run_id))
        return True

    def step(self, timeout_seconds: float = 0.0) -> list[Finished]:
        """Hears what the child has to say, waits for its first word at most so long. Returns what has ended.

        Raises ChildWillNotLoad.
        """
        try:
            message = self._child.receive(0.0 if self._ended else timeout_seconds)
            while message is not None:
                self._hear(message)
                message = self._child.receive(0)
        except ChildDied as death:
            self._died(death)
        self._check_limits()
        ended, self._ended = self._ended, []
        return ended

    def abandon(self) -> None:
        """Ends what is in hand without an outcome: nobody waits for it any more."""
        self._ended.clear()
        if not self._current:
            return
        log.warning("abandoned", dispatch_ids=[item.dispatch_id for item in self.items])
        self._current.clear()
        self._by_dispatch.clear()
        self._child.kill()
        self._start_child()

    def close(self) -> None:
        """Ends the child and removes the files."""
        self._child.kill()
        self._workplace.close()

    # -- handing over

    def _prepare(self, item: WorkItem) -> Attempt | None:
        """An attempt to hand over; an item that cannot even begin has ended."""
        self._run_id += 1
        began = self._clock.now_ms()
        made = self._workplace.prepare(item, self._run_id, self._clock.monotonic_seconds())
        if isinstance(made, Attempt):
            return made
        self._ended.append(Finished(item=item, started_at=began, ended_at=self._clock.now_ms(), ending=made))
        return None

    def _drop(self, current: Attempt, ending: Ending) -> None:
        """Ends a run that is not at work. Nobody waits for the child to look up; what it makes of the run is not used,
        and the run's place is free when the child has let go of it."""
        self._left[current.run.run_id] = current
        self._end(current, ending, keep_place=True)
        self._tell_child(Cancel(run_id=current.run.run_id))

    def _tell_child(self, message: Message) -> None:
        try:
            self._child.send(message)
        except ChildDied:
            pass  # the next step finds it dead

    def _hand_over(self, made: list[Attempt]) -> None:
        if not made:
            return
        self._heard_at = self._clock.monotonic_seconds()
        try:
            self._child.send(*[current.run for current in made])
        except ChildDied as death:
            self._died(death)

    # -- what the child says

    def _hear(self, message: Message) -> None:
        self._heard_at = self._clock.monotonic_seconds()
        match message:
            case Done(run_id=run_id) | StageFailed(run_id=run_id) | Stopped(run_id=run_id):
                self._hear_end(run_id, message)
            case Begun(run_id=run_id, alone=alone):
                self._hear_begun(run_id, alone)
            case Progress(run_id=run_id, fraction=fraction, message=words):
                if (current := self._current.get(run_id)) is not None:
                    self._listener.on_progress(current.item, fraction, words)
            case Heartbeat():
                pass
            case Ready(resource_class=resource_class):
                self._hear_ready(resource_class)
            case LoadFailed(message=text):
                raise ChildWillNotLoad(text)
            case _:
                log.warning("child_said_something_odd", kind=type(message).__name__)

    def _hear_ready(self, resource_class: str) -> None:
        self._ready = True
        self._load_tries = 0
        self.resource_class = self._settings.resource_class or resource_class
        log.info("child_ready", seconds=round(time.monotonic() - self._started, 3), pid=self._child.pid)
        # Those that had no part in the death of an older child.
        again = [(c, made) for c in self._current.values() if (made := self._prepare(c.item)) is not None]
        self._current.clear()
        self._by_dispatch.clear()
        for old, new in again:
            new.started_at = old.started_at
            self._current[new.run.run_id] = new
            self._by_dispatch[new.item.dispatch_id] = new.run.run_id
        self._hand_over([new for _, new in again])

    def _hear_begun(self, run_id: int, alone: bool) -> None:
        current = self._current.get(run_id)
        if current is None:
            return  # canceled meanwhile
        # The first of several in hand is held from the hand-over on: fetching its inputs held the slot as well.
        current.began = max(current.handed_at, self._alone_ended) if alone else current.handed_at
        if alone:
            self._alone = run_id
        if current.started_at is None:
            current.started_at = self._clock.now_ms()
            self._listener.on_begun(current.item, current.started_at)

    def _hear_end(self, run_id: int, message: Done | StageFailed | Stopped) -> None:
        current = self._current.get(run_id)
        if current is None:
            if (left := self._left.pop(run_id, None)) is not None:
                self._workplace.clear(left)
            return
        seconds = None if isinstance(message, Stopped) or current.began is not None else message.seconds
        ending: Ending
        if isinstance(message, Done):
            ending = self._workplace.keep(current, message)
        elif isinstance(message, Stopped) or current.kill_at is not None:
            ending = Canceled()
        else:
            ending = Failed(
                error_class=message.error_class,
                message=message.message,
                retry_after_seconds=message.retry_after_seconds,
            )
        self._end(current, ending, seconds=seconds)

    def _end(self, current: Attempt, ending: Ending, *, seconds: float | None = None, keep_place: bool = False) -> None:
        """seconds: how long it ran, by the child; None: as long as it held the slot."""
        run_id, now, ended_at = current.run.run_id, self._clock.monotonic_seconds(), self._clock.now_ms()
        del self._current[run_id]
        del self._by_dispatch[current.item.dispatch_id]
        if self._alone == run_id:
            self._alone, self._alone_ended = None, now
        if not keep_place:
            self._workplace.clear(current)
        told = current.started_at is not None
        if seconds is None and current.began is not None:
            seconds = now - current.began
        started_at = current.started_at
        if started_at is None and seconds is not None:
            started_at = ended_at - round(seconds * 1000)
        self._ended.append(
            Finished(
                item=current.item,
                started_at=started_at,
                ended_at=ended_at,
                ending=ending,
                seconds=seconds,
                started_told=told,
            )
        )

    # -- limits and deaths

    def _check_limits(self) -> None:
        now = self._clock.monotonic_seconds()
        if not self._ready:
            if time.monotonic() - self._started > self._settings.load_timeout_seconds:
                raise ChildWillNotLoad(f"not ready after {self._settings.load_timeout_seconds:.0f} s")
            return
        if not self._current:
            return
        if now >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            self._check_waiting(now)
        if self._alone is not None:
            self._check_alone(self._current[self._alone], now)
        elif self._current and now - self._heard_at >= self._settings.silence_seconds:
            self._kill_for(next(iter(self._current.values())), self._hung)

    def _check_waiting(self, now: float) -> None:
        """Runs that wait beside others take no longer than those that work, and end without the child's death."""
        limit = now - self._settings.stage_timeout_seconds
        for current in list(self._current.values()):
            if current.began is not None and current.began <= limit and current.run.run_id != self._alone:
                self._drop(current, self._too_long(current))

    def _check_alone(self, current: Attempt, now: float) -> None:
        assert current.began is not None
        if current.kill_at is not None and now >= current.kill_at:
            self._kill_for(current, Canceled())
        elif now >= current.began + self._settings.stage_timeout_seconds:
            self._kill_for(current, self._too_long(current))
        elif now - self._heard_at >= self._settings.silence_seconds:
            self._kill_for(current, self._hung)

    def _too_long(self, current: Attempt) -> Failed:
        limit = self._settings.stage_timeout_seconds
        return Failed(error_class="timeout", message=f"stage {current.item.stage} took longer than {limit:.0f} s")

    @property
    def _hung(self) -> Failed:
        seconds = self._settings.silence_seconds
        return Failed(error_class="timeout", message=f"the stage hung: nothing was heard of it for {seconds:.0f} s")

    def _kill_for(self, current: Attempt, ending: Ending) -> None:
        log.warning("child_killed", dispatch_id=current.item.dispatch_id, reason=type(ending).__name__)
        self._child.kill()
        if current.kill_at is not None:
            ending = Canceled()
        self._end(current, ending)
        self._start_child()

    def _died(self, death: ChildDied) -> None:
        guilty = self._guilty()
        log.warning("child_died", how=death.how, dispatch_id=guilty.item.dispatch_id if guilty else None)
        if guilty is not None:
            message = f"the process of stage {guilty.item.stage} died ({death.how})"
            if guilty.started_at is None:
                guilty.began = guilty.handed_at
            self._end(
                guilty,
                Canceled() if guilty.kill_at is not None else Failed(error_class="crash", message=message),
            )
        elif not self._ready and self._load_tries >= LOAD_TRIES:
            raise ChildWillNotLoad(death.how)
        self._start_child()

    def _guilty(self) -> Attempt | None:
        """Which run is to blame for the child's death: the one at work, else the one whose turn it was. So a run that
        kills every child does not do so for ever."""
        if not self._ready or not self._current:
            return None
        if self._alone is not None:
            return self._current.get(self._alone)
        every = self._current.values()
        return next((current for current in every if current.began is None), None) or next(iter(every))

    def _start_child(self) -> None:
        self._ready = False
        self._load_tries += 1
        self._started = time.monotonic()
        self._alone = None
        self._left.clear()
        self._workplace.renew()
        for current in self._current.values():
            current.began = None
        self._child = ChildProcess()
        try:
            self._child.send(Load(serves=self._settings.serves, versions=self._settings.versions))
        except ChildDied as death:
            log.warning("child_died", how=death.how, dispatch_id=None)  # `step` finds it dead and counts
