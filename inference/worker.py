"""One slot's worker: takes work from its partition, has it run in the child, tells how it ended in one transaction.

Sync code in one thread, beside it a heartbeat. It waits for Kafka while idle and for the child while busy; nothing
spins. Order of a life: fence older lives of the slot (init_transactions), load the child, remember where the work
partition ends, append SlotJoined. Short results that come close together are settled in one transaction.
"""

import signal
import time
from collections.abc import Sequence
from typing import Any, Final

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from inference.heartbeat import Heartbeat, SlotView, State
from inference.intake import Intake
from inference.outbox import Outbox
from inference.outcome import Canceled, Failed, Finished, SlotIdentity
from inference.progress import ProgressMeter
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
BUSY_SECONDS: Final = 0.1  # how late a busy one notices a cancel
SETTLE_DELAY_SECONDS: Final = 0.02  # how long a result waits for company while more work waits
SETTLE_TOGETHER: Final = 64
OWNERSHIP_SECONDS: Final = 30.0  # a slot that commits nothing asks so often whether it is still its own
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
        self._plain = Producer(producer_config(kafka))
        self._outbox = Outbox(self._plain, codec, domain=kafka.domain)
        self._epoch = self._clock.now_ms()
        self._intake = Intake(settings.slot, self._epoch, 0)
        self._meter: ProgressMeter | None = None
        self._finished: list[Finished] = []
        self._oldest_finished = 0.0
        self._joined = False
        self._opened_at = 0.0
        self._owned_at = 0.0
        self._stop_at: float | None = None

    def stop(self) -> None:
        """Takes no new work, lets the running item end, then `run` returns. Safe in a signal handler."""
        if self._stop_at is None:
            self._stop_at = time.monotonic() + self._settings.drain_seconds

    def run(self) -> int:
        """The worker's life. Returns the exit code: 0 after a drain, 1 when the slot was fenced.

        Raises ChildWillNotLoad, and KafkaException when the brokers refuse the slot for good.
        """
        try:
            self._producer = self._open_producer()
            self._runner = Runner(self._settings, self._store, self._clock, self._take_progress)
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
            self._consumer.close()
            self._outbox.flush(10)
        return 0

    # -- one turn

    def _turn(self) -> None:
        """Waits for one thing and does what follows from it."""
        if self._runner.item is not None or not self._runner.ready:
            self._wait_for_child(self._busy_wait())
            self._read(0)
        elif not self._joined:
            self._join()
        else:
            self._read(0 if self._finished or self._intake.waiting else IDLE_SECONDS)
            self._wait_for_child(0)  # an idle child may have died
        self._begin_next()
        if self._settle_is_due():
            self._settle()
        if self._joined and (self._heartbeat.take_gap() or time.monotonic() - self._owned_at > OWNERSHIP_SECONDS):
            self._commit([])  # raises SlotFenced when the slot was given to another life

    def _wait_for_child(self, timeout_seconds: float) -> None:
        finished = self._runner.step(timeout_seconds)
        if finished is not None:
            self._note(finished)
        item = self._runner.item
        if item is None or self._meter is None:
            return
        now = self._clock.now_ms()
        due = self._meter.due(now)
        if due is not None:
            self._outbox.send_progress(item, due[0], due[1], now)

    def _busy_wait(self) -> float:
        if not self._finished:
            return BUSY_SECONDS
        return min(BUSY_SECONDS, max(0.0, self._oldest_finished + SETTLE_DELAY_SECONDS - time.monotonic()))

    def _read(self, timeout_seconds: float) -> None:
        """Takes in what stands on the work partition; waits only for the first record."""
        if not self._joined:
            return
        message = self._consumer.poll(timeout_seconds)
        while message is not None:
            self._take_in(message)
            message = self._consumer.poll(0)

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
        canceled = self._intake.add(offset, batch)
        running = self._runner.item
        if running is not None and running.dispatch_id in canceled:
            log.info("cancel_asked", **self._about(running))
            self._runner.cancel()

    def _begin_next(self) -> None:
        while self._stop_at is None and self._joined and self._runner.ready and self._runner.item is None:
            item = self._intake.take()
            if item is None:
                return
            now = self._clock.now_ms()
            if self._intake.is_canceled(item.dispatch_id):
                self._note(Finished(item=item, started_at=None, ended_at=now, ending=Canceled()))
                continue
            self._outbox.send_started(item, self._who, now)
            self._meter = ProgressMeter(item)
            finished = self._runner.start(item)
            if finished is not None:
                self._note(finished)

    def _note(self, finished: Finished) -> None:
        if not self._finished:
            self._oldest_finished = time.monotonic()
        self._finished.append(finished)
        self._meter = None

    def _settle_is_due(self) -> bool:
        if not self._finished:
            return False
        if len(self._finished) >= SETTLE_TOGETHER or time.monotonic() - self._oldest_finished >= SETTLE_DELAY_SECONDS:
            return True
        more_at_once = self._runner.item is not None or (self._intake.waiting and self._runner.ready)
        return self._stop_at is not None or not more_at_once

    def _settle(self) -> None:
        """Writes the ends of all finished items, and how far the work partition is done."""
        done, self._finished = self._finished, []
        for finished in done:
            self._intake.settle(finished.item.dispatch_id)
        self._commit(self._outbox.ends(done, self._who))
        for finished in done:
            self._log_end(finished)

    def _commit(self, records: Sequence[Outgoing]) -> None:
        self._producer.commit(records, self._intake.commit_offset)
        self._owned_at = time.monotonic()

    def _take_progress(self, fraction: float, message: str) -> None:
        if self._meter is not None:
            self._meter.tell(fraction, message)

    # -- the slot's life

    def _open_producer(self) -> SlotProducer:
        """A producer that has fenced every older one of this slot; waits for brokers that do not answer.

        Raises StopRequested, KafkaException.
        """
        while self._stop_at is None:
            producer = self.slot_producer(self._kafka, self._settings.slot, self._consumer)
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
        if not self._consumer.assignment():
            place = TopicPartition(work_topic(self._kafka.domain), self._settings.slot)
            try:
                _, place.offset = self._consumer.get_watermark_offsets(place, timeout=OPEN_SECONDS)
            except KafkaException as error:
                if error.args[0].code() not in _UNREACHABLE:
                    raise
                log.warning("work_not_reached", error=str(error.args[0]), slot=self._settings.slot)
                time.sleep(RETRY_SECONDS)
                return
            self._consumer.assign([place])
            self._intake = Intake(self._settings.slot, self._epoch, place.offset)
        if time.monotonic() - self._opened_at > STALE_PRODUCER_SECONDS:
            self._producer.close()
            self._producer = self._open_producer()
        now = self._clock.now_ms()
        self._producer.commit(self._outbox.slot_change("slot_joined", self._who, self._settings.serves, now), None)
        self._owned_at = time.monotonic()
        self._joined = True
        self._heartbeat.beat_now()
        log.info("slot_joined", slot=self._settings.slot, epoch=self._epoch, pool=self._settings.pool)

    def _renew(self) -> None:
        """Begins a new life in the same process; the scheduler gives another attempt to what the old one had."""
        self._joined = False
        self._producer.close()
        self._finished.clear()
        self._meter = None
        self._runner.abandon()
        self._epoch = max(self._clock.now_ms(), self._epoch + 1)
        self._intake.begin_epoch(self._epoch)
        self._producer = self._open_producer()

    def _drained(self) -> bool:
        if self._stop_at is None or self._finished:
            return False
        return self._runner.item is None or time.monotonic() >= self._stop_at

    def _leave(self) -> None:
        """Tells the scheduler that this life takes no more work, so that nobody waits for the slot monitor.

        Work that it still had (waiting, or running past the drain time) gets another attempt.
        """
        if self._joined:
            now = self._clock.now_ms()
            try:
                self._commit(self._outbox.slot_change("slot_lost", self._who, self._settings.serves, now))
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
        running = self._runner.item
        state: State = "idle" if running is None else "busy"
        if self._stop_at is not None:
            state = "stopping"
        elif not self._joined or not self._runner.ready:
            state = "loading"
        return SlotView(
            epoch=self._epoch,
            state=state,
            dispatch_ids=() if running is None else (running.dispatch_id,),
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
        log.info(
            "stage_ended",
            outcome=type(ending).__name__.lower(),
            error_class=ending.error_class if isinstance(ending, Failed) else None,
            run_seconds=finished.run_seconds,
            **self._about(finished.item),
        )


def stop_on_signals(worker: Worker) -> None:
    """SIGTERM and SIGINT drain the worker."""

    def handle(_number: int, _frame: Any) -> None:
        worker.stop()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
