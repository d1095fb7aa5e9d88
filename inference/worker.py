"""One slot's worker: takes work from its partition, has it run in the child, tells how it ended in one transaction.

Sync code in one thread, which waits for work and for the child at once; beside it a reader and a heartbeat. Order of a
life: fence older lives of the slot (init_transactions), load the child, remember where the work partition ends, append
SlotJoined. Results that come close together are settled in one transaction.
"""

import select
import time
from collections.abc import Sequence
from typing import Any, Final

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from inference.heartbeat import Heartbeat, SlotView, State
from inference.intake import Intake
from inference.outbox import Outbox
from inference.outcome import Canceled, Failed, Finished, SlotIdentity, SlotOffer, Succeeded
from inference.progress import ProgressBoard
from inference.reader import WorkReader
from inference.runner import Runner
from inference.settings import WorkerSettings
from inference.transactions import CommitUnsure, SlotFenced, SlotProducer, work_group
from inference.work import WorkItem
from schemas.codec import Codec
from schemas.errors import CodecError
from schemas.topics import work_topic
from streams.clock import Clock, SystemClock
from streams.kafka.consumer import consumer_config
from streams.kafka.producer import Outgoing, producer_config
from streams.kafka.settings import KafkaSettings
from streams.objects import ObjectStore

log = structlog.get_logger(__name__)

IDLE_SECONDS: Final = 0.5  # how late an idle worker notices a signal or its child's death
BUSY_SECONDS: Final = 0.1  # how late a busy one notices a time limit
SETTLE_DELAY_SECONDS: Final = 0.02  # how long a result waits for company while more are about to come
SETTLE_TOGETHER: Final = 256
OWNERSHIP_SECONDS: Final = 30.0  # a slot that commits nothing asks so often whether it is still its own
# The offset tells others how far the slot is; nobody resumes by it, as epochs decide what is worked on. In every
# transaction it would cost two round trips and a third of the broker's work.
OFFSET_SECONDS: Final = 1.0
SHORT_SECONDS: Final = 0.5
OPEN_SECONDS: Final = 5.0
RETRY_SECONDS: Final = 1.0
# While the child loads, nobody hears of the older life: the slot monitor may fence the slot, which means us then.
STALE_PRODUCER_SECONDS: Final = 5.0
# Brokers that will answer later.
_UNREACHABLE: Final = frozenset(
    {
        KafkaError._TIMED_OUT,
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
    }
)


class StopRequested(Exception):
    """The worker was told to stop while it waited for the brokers."""


class Worker:
    """Runs one slot until `stop` is called or the slot is fenced."""

    slot_producer: type[SlotProducer] = SlotProducer

    def __init__(
        self,
        settings: WorkerSettings,
        kafka: KafkaSettings,
        store: ObjectStore,
        codec: Codec,
        *,
        clock: Clock | None = None,
    ) -> None:
        self._settings = settings
        self._kafka = kafka
        self._store = store
        self._codec = codec
        self._clock = clock or SystemClock()
        self._consumer = Consumer(consumer_config(kafka, work_group(kafka.domain)))
        # Started, progress, heartbeats: nobody waits for them, so those of several attempts go together.
        self._plain = Producer(producer_config(kafka, linger_ms=5))
        self._outbox = Outbox(self._plain, codec, domain=kafka.domain)
        self._epoch = self._clock.now_ms()
        self._group = self._consumer.consumer_group_metadata()
        self._reader = WorkReader(self._consumer)
        self._intake = Intake(settings.slot, self._epoch, 0)
        self._progress = ProgressBoard()
        self._offer = SlotOffer(serves=settings.serves, versions=settings.versions, capacity=settings.capacity)
        self._finished: list[Finished] = []
        self._oldest_finished = 0.0
        self._committing: tuple[str, ...] = ()
        self._joined = False
        self._opened_at = 0.0
        self._owned_at = 0.0
        self._offset_at = 0.0
        self._committed_offset = -1
        self._stop_at: float | None = None

    def stop(self) -> None:
        """Takes no new work, lets what is in hand end, then `run` returns. Safe in a signal handler."""
        if self._stop_at is None:
            self._stop_at = time.monotonic() + self._settings.drain_seconds

    def run(self) -> int:
        """The worker's life. Returns the exit code: 0 after a drain, 1 when the slot was fenced.

        Raises ChildWillNotLoad, and KafkaException when the brokers refuse the slot for good.
        """
        try:
            self._producer = self._open_producer()
            self._runner = Runner(self._settings, self._store, self._codec, self._clock, self)
        except StopRequested:
            return 0
        heartbeat = self._heartbeat = self._new_heartbeat()
        heartbeat.start()
        log.info("worker_started", slot=self._settings.slot, pool=self._settings.pool, epoch=self._epoch)
        try:
            while not self._drained():
                try:
                    self._turn()
                except CommitUnsure as error:
                    log.warning("commit_unsure", error=error.detail, slot=self._settings.slot, epoch=self._epoch)
                    self._renew()
            heartbeat.beat_now()
            self._leave()
        except StopRequested:
            pass
        except SlotFenced:
            log.error("slot_fenced", slot=self._settings.slot, epoch=self._epoch)
            return 1
        finally:
            self._runner.close()
            heartbeat.stop()
            self._producer.close()
            self._reader.close()
            self._outbox.flush(10)
        return 0

    # -- one turn

    def _turn(self) -> None:
        """Waits for one thing and does what follows from it."""
        if self._runner.ready and not self._joined:
            self._join()
        else:
            self._wait(self._patience())
        for finished in self._runner.step():
            self._note(finished)
        for message in self._reader.take():
            self._take_in(message)
        self._begin_next()
        now = self._clock.now_ms()
        for item, percent, words in self._progress.due(now):
            self._outbox.send_progress(item, percent, words, now)
        if self._settle_is_due():
            self._settle()
        if self._joined and (self._heartbeat.take_gap() or self._asks_now()):
            self._commit([])  # raises SlotFenced when the slot was given to another life

    def _asks_now(self) -> bool:
        """Whether a slot that has nothing to settle commits all the same."""
        now = time.monotonic()
        if now - self._owned_at > OWNERSHIP_SECONDS:
            return True
        idle = not self._runner.items and self._intake.commit_offset != self._committed_offset
        return idle and now - self._offset_at > OFFSET_SECONDS

    def _patience(self) -> float:
        """How long to wait at most when nothing happens."""
        if self._runner.has_ended or self._can_begin:
            return 0.0
        if self._finished:
            return max(0.0, self._oldest_finished + SETTLE_DELAY_SECONDS - time.monotonic())
        return IDLE_SECONDS if self._runner.ready and not self._runner.items else BUSY_SECONDS

    def _wait(self, timeout_seconds: float) -> None:
        """Until the child says something, or work comes, or the time is over."""
        child = self._runner.fileno()
        if child < 0:
            return  # it has died, which `step` finds out
        poll = select.poll()
        poll.register(child, select.POLLIN)
        if self._joined:
            poll.register(self._reader, select.POLLIN)
        poll.poll(timeout_seconds * 1000)

    def _take_in(self, message: Message) -> None:
        error = message.error()
        if error is not None:
            log.warning("work_not_read", error=str(error), slot=self._settings.slot)
            return
        offset = message.offset() or 0
        try:
            batch = self._codec.decode(message.value(), "work_batch")
        except CodecError as reason:
            log.warning("work_undecodable", reason=reason.code, offset=offset, slot=self._settings.slot)
            self._intake.skip(offset)
            self._outbox.send_dead(message, reason, self._clock.now_ms())
            return
        for dispatch_id in self._intake.add(offset, batch):
            if self._runner.cancel(dispatch_id):
                log.info("cancel_asked", dispatch_id=dispatch_id, slot=self._settings.slot, epoch=self._epoch)

    def _begin_next(self) -> None:
        if not self._can_begin:
            return
        begun: list[WorkItem] = []
        while len(begun) < self._runner.free and (item := self._intake.take()) is not None:
            if self._intake.is_canceled(item.dispatch_id):
                self._note(Finished(item=item, started_at=None, ended_at=self._clock.now_ms(), ending=Canceled()))
            else:
                begun.append(item)
        if begun:
            self._runner.start(begun)

    def _note(self, finished: Finished) -> None:
        if not self._finished:
            self._oldest_finished = time.monotonic()
        self._finished.append(finished)
        self._progress.forget(finished.item.dispatch_id)

    def _settle_is_due(self) -> bool:
        if not self._finished:
            return False
        if len(self._finished) >= SETTLE_TOGETHER or time.monotonic() - self._oldest_finished >= SETTLE_DELAY_SECONDS:
            return True
        return self._stop_at is not None or not (self._runner.ends_soon or self._can_begin)

    @property
    def _can_begin(self) -> bool:
        """Whether an item waits that could be begun."""
        may = self._stop_at is None and self._joined and self._runner.ready
        return may and self._intake.waiting > 0 and self._runner.free > 0

    def _settle(self) -> None:
        """Writes the ends of all finished items, and how far the work partition is done."""
        done, self._finished = self._finished, []
        self._committing = tuple(finished.item.dispatch_id for finished in done)
        for dispatch_id in self._committing:
            self._intake.settle(dispatch_id)
        self._commit(self._outbox.ends(done, self._who))
        self._committing = ()
        for finished in done:
            self._log_end(finished)

    def _commit(self, records: Sequence[Outgoing]) -> None:
        now = time.monotonic()
        offset = self._intake.commit_offset
        with_offset = not records or now - self._offset_at > OFFSET_SECONDS
        self._producer.commit(records, offset if with_offset else None)
        self._owned_at = time.monotonic()
        if with_offset:
            self._offset_at, self._committed_offset = now, offset

    # -- what runs say, see `inference.runner.Listener`

    def on_begun(self, item: WorkItem, at: int) -> None:
        """An attempt that goes on for a while has begun; of others it is told with their end."""
        self._outbox.send_started(item, self._who, at)

    def on_progress(self, item: WorkItem, fraction: float, message: str) -> None:
        """How far an attempt is."""
        self._progress.tell(item, fraction, message)

    # -- the slot's life

    def _open_producer(self) -> SlotProducer:
        """A producer that has fenced every older one of this slot; waits for brokers that do not answer.

        Raises StopRequested, KafkaException.
        """
        while self._stop_at is None:
            producer = self.slot_producer(self._kafka, self._settings.slot, self._group)
            try:
                producer.open(OPEN_SECONDS)
                self._opened_at = time.monotonic()
                return producer
            except KafkaException as error:
                producer.close()
                log.warning("slot_not_opened", error=str(error.args[0]), slot=self._settings.slot)
                if not error.args[0].retriable():
                    raise
            time.sleep(RETRY_SECONDS)
        raise StopRequested

    def _join(self) -> None:
        """Tells the scheduler that this life of the slot takes work from here on."""
        if not self._reader.started:
            place = TopicPartition(work_topic(self._kafka.domain), self._settings.slot)
            try:
                _, place.offset = self._consumer.get_watermark_offsets(place, timeout=OPEN_SECONDS)
            except KafkaException as error:
                if error.args[0].code() not in _UNREACHABLE:
                    raise
                log.warning("work_not_reached", error=str(error.args[0]), slot=self._settings.slot)
                time.sleep(RETRY_SECONDS)
                return
            self._intake = Intake(self._settings.slot, self._epoch, place.offset)
            self._reader.start(place)
        if time.monotonic() - self._opened_at > STALE_PRODUCER_SECONDS:
            self._producer.close()
            self._producer = self._open_producer()
        now = self._clock.now_ms()
        self._producer.commit(self._outbox.slot_change("slot_joined", self._who, self._offer, now), None)
        self._owned_at = self._offset_at = time.monotonic()
        self._committed_offset = self._intake.commit_offset
        self._joined = True
        self._heartbeat.beat_now()
        log.info("slot_joined", slot=self._settings.slot, epoch=self._epoch, pool=self._settings.pool)

    def _renew(self) -> None:
        """Begins a new life in the same process; the scheduler gives another attempt to what the old one had."""
        self._joined = False
        self._producer.close()
        self._finished.clear()
        self._committing = ()
        self._progress.clear()
        self._runner.abandon()
        self._epoch = max(self._clock.now_ms(), self._epoch + 1)
        self._intake.begin_epoch(self._epoch)
        self._producer = self._open_producer()

    def _drained(self) -> bool:
        if self._stop_at is None or self._finished:
            return False
        return not self._runner.items or time.monotonic() >= self._stop_at

    def _leave(self) -> None:
        """Tells the scheduler that this life takes no more work, so that nobody waits for the slot monitor.

        Work that it still had (waiting, or running past the drain time) gets another attempt.
        """
        if self._joined:
            now = self._clock.now_ms()
            try:
                self._commit(self._outbox.slot_change("slot_lost", self._who, self._offer, now))
            except CommitUnsure as error:
                log.warning("leave_unsure", error=error.detail, slot=self._settings.slot)
        log.info("worker_stopped", slot=self._settings.slot, epoch=self._epoch, left=self._intake.dispatch_ids)

    # -- what it says of itself

    @property
    def _who(self) -> SlotIdentity:
        return SlotIdentity(
            slot=self._settings.slot,
            epoch=self._epoch,
            pool=self._settings.pool,
            resource_class=self._runner.resource_class or "cpu",
        )

    def _new_heartbeat(self) -> Heartbeat:
        return Heartbeat(
            self._plain,
            self._codec,
            self._clock,
            domain=self._kafka.domain,
            slot=self._settings.slot,
            pool=self._settings.pool,
            # The slot monitor gives a slot up after the grace; a worker that was silent for nearly so long must ask.
            lease_seconds=0.8 * self._settings.slot_grace_seconds,
            view=self._view,
        )

    def _view(self) -> SlotView:
        """For the heartbeat's thread: reads each thing once."""
        # Whatever was taken in and is not settled, as far as others can read.
        in_hand = self._intake.dispatch_ids + self._committing
        state: State = "busy" if in_hand else "idle"
        if self._stop_at is not None:
            state = "stopping"
        elif not self._joined or not self._runner.ready:
            state = "loading"
        return SlotView(
            epoch=self._epoch,
            state=state,
            dispatch_ids=in_hand,
            last_work_offset=self._intake.last_offset,
            child_pid=self._runner.child_pid,
        )

    def _about(self, item: WorkItem) -> dict[str, Any]:
        return {
            "job_id": item.job_id,
            "stage": item.stage,
            "attempt": item.attempt,
            "slot": self._settings.slot,
            "epoch": self._epoch,
            "trace_id": item.trace_id,
        }

    def _log_end(self, finished: Finished) -> None:
        ending = finished.ending
        if isinstance(ending, Succeeded) and finished.run_seconds < SHORT_SECONDS:
            return  # a line for each of thousands of short stages would cost as much as the stages
        log.info(
            "stage_ended",
            outcome=type(ending).__name__.lower(),
            error_class=ending.error_class if isinstance(ending, Failed) else None,
            run_seconds=finished.run_seconds,
            **self._about(finished.item),
        )
