"""Finds what fell between two chairs and mends it: accepted jobs that the scheduler does not know, work that a slot
does not have, slots that the scheduler does not know.

A thread beside the scheduler; the fold knows nothing of it. Each repair goes the way that everything else goes (an
inbox entry that the fold treats as any repeat, a fence by the slot monitor), is counted, logged, and told as a
platform event of the kind `repair`.

Jobs: `jobs.events` says which jobs were accepted (`queued`). One that is older than `reconcile_after_seconds` must be
known to the fold, as a job or as one that ended; if it is not even known when the fold has read everything that stood
in the inbox at that moment, it is handed in again: the request is looked up on its topic by time, and the StageReady
has the same job id, and the stage and artefacts that the job's events tell of. The offset before the oldest event that
still waits is committed, so a restart forgets none.

Slots: a dispatch that the fold believes to be in a slot's hands, that the slot does not name in two heartbeats some
time apart although it has read its work partition up to there (or reads nothing at all), is lost. Nobody can know
whether the slot will start it after all, so the slot is fenced and its work goes elsewhere; it is never simply sent
again. A slot that wants work and that the fold does not have is fenced too: its worker starts anew and joins.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import structlog
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from schemas.codec import Codec, Record
from schemas.errors import CodecError
from schemas.jobs import TERMINAL_TRANSITIONS, Transition
from schemas.pipelines import PIPELINES
from schemas.topics import EVENTS, requests_topic, schedule_topic, work_topic
from streams.beside import Beside
from streams.inbox import InboxWriter
from streams.kafka.consumer import consumer_config, partition_count, read_range
from streams.policy.disputes import Disputes
from streams.policy.ready import stage_ready
from streams.settings import StreamsSettings

log = structlog.get_logger(__name__)

POLL_SECONDS: Final = 0.5
# Slots are compared so many times in the time between two comparisons of jobs.
SLOT_ROUNDS: Final = 3
# Without a committed offset: how far back jobs.events is read. The fold remembers ended jobs for as long.
LOOK_BACK_MS: Final = 24 * 3_600_000
# Where a request is looked for: around the time of its `queued` event, else after its creation.
AROUND_MS: Final = 2_000
AFTER_CREATION_MS: Final = 900_000
TRIES: Final = 3
# Events are looked at seldom: few large fetches.
UNHURRIED: Final = {"fetch.min.bytes": 1_000_000, "fetch.wait.max.ms": 5_000}
# The value of `transition` as Avro writes it: length (zigzag), bytes. Saves decoding the seven other events of a job.
_QUEUED: Final = b"\x0cqueued"


def reconciler_group(domain: str) -> str:
    """Consumer group that holds how far a domain's reconciler has looked."""
    return f"meshyard-reconciler-{domain}"


@dataclass(frozen=True, kw_only=True)
class SchedulerView:
    """What the reconciler may ask of the scheduler, from its own thread.

    knows: whether the fold has the job, or had it to its end; folded: the inbox offset up to which it has read;
    in_hand: slot -> its epoch and the dispatches that the fold believes it to hold, all of them sent and acked.
    """

    knows: Callable[[str], bool]
    folded: Callable[[], int]
    in_hand: Callable[[], Mapping[int, tuple[int, frozenset[str]]]]


@dataclass(kw_only=True)
class Accepted:
    """A `queued` event whose job the fold has not been seen to know. finished: stage index -> artefacts, of stages that
    succeeded since; inbox_end: where the inbox ended when it was first missed; tries: how often it was handed in."""

    event: Record
    partition: int
    offset: int
    heard_ms: int
    finished: dict[int, list[Record]] = field(default_factory=dict)
    inbox_end: int | None = None
    tries: int = 0


class Reconciler(Beside):
    """The thread. `fence` ends a life of a slot; `repairs` counts what was done, by what it was."""

    name = "reconciler"

    def __init__(
        self,
        settings: StreamsSettings,
        codec: Codec,
        inbox: InboxWriter,
        view: SchedulerView,
        fence: Callable[[int, int], None],
        fail: Callable[[BaseException], None],
    ) -> None:
        super().__init__(fail)
        self._settings = settings
        self._kafka = settings.kafka
        self._codec = codec
        self._inbox = inbox
        self._view = view
        self._fence = fence
        self._accepted: dict[str, Accepted] = {}
        self._lookup: Consumer | None = None
        self._disputes = Disputes(settings.reconcile_seconds / SLOT_ROUNDS)
        self.repairs: dict[str, int] = {}

    def hear(self, beat: Record) -> None:
        """A heartbeat of one of the domain's slots; called by the slot monitor's thread."""
        self._disputes.heard(beat, self._inbox.clock.monotonic_seconds())

    def run(self) -> None:
        """Compares, again and again. A broker that does not answer is asked again in the next round."""
        config = consumer_config(self._kafka, reconciler_group(self._kafka.domain))
        consumer = Consumer({**config, **UNHURRIED})
        try:
            self._assign(consumer)
            clock = self._inbox.clock
            pause = self._settings.reconcile_seconds / SLOT_ROUNDS
            rounds, due = 0, clock.monotonic_seconds() + pause
            while not self.stopping.wait(POLL_SECONDS):
                if clock.monotonic_seconds() < due:
                    continue
                rounds += 1
                try:
                    self._compare_slots()
                    if rounds % SLOT_ROUNDS == 0:
                        self._listen(consumer)
                        self._compare_jobs()
                        self._commit(consumer)
                except (KafkaException, TimeoutError) as error:
                    log.warning("reconciliation_put_off", error=str(error))
                due = clock.monotonic_seconds() + pause
        finally:
            consumer.close()
            if self._lookup is not None:
                self._lookup.close()

    # ---- jobs ---------------------------------------------------------------------------------------------------

    def _assign(self, consumer: Consumer) -> None:
        places = [TopicPartition(EVENTS, p) for p in range(partition_count(self._kafka, EVENTS))]
        since = self._inbox.clock.now_ms() - LOOK_BACK_MS
        committed = consumer.committed(places, timeout=30)
        by_time = offsets_at(consumer, EVENTS, len(places), since)
        consumer.assign(
            [
                TopicPartition(EVENTS, place.partition, max(place.offset, at) if place.offset >= 0 else at)
                for place, at in zip(committed, by_time, strict=True)
            ]
        )

    def _listen(self, consumer: Consumer) -> None:
        """Reads all events that stand there now."""
        while not self.stopping.is_set():
            messages = consumer.consume(2_000, timeout=POLL_SECONDS)
            if not messages:
                return
            for message in messages:
                if message.error() is None:
                    self._take(message)

    def _take(self, message: Message) -> None:
        value, key = message.value(), message.key()
        if not isinstance(value, bytes) or key is None:
            return
        job_id = key.decode("utf-8", "replace") if isinstance(key, bytes) else key
        if _QUEUED not in value and job_id not in self._accepted:
            return
        try:
            event = self._codec.decode(value, "job_event")
        except CodecError as error:
            log.warning("event_unreadable", offset=message.offset(), reason=error.code)
            return
        transition, known = event["transition"], self._accepted.get(job_id)
        if transition in TERMINAL_TRANSITIONS:
            self._accepted.pop(job_id, None)
        elif known is not None:
            if transition == Transition.STAGE_SUCCEEDED:
                known.finished[event["stage_index"]] = event["artefacts"]
        elif (
            transition == Transition.QUEUED
            and self._settings.domain_for(event["pipeline_id"]) == self._kafka.domain
            and not self._view.knows(job_id)
        ):
            self._accepted[job_id] = Accepted(
                event=event,
                partition=message.partition() or 0,
                offset=message.offset() or 0,
                heard_ms=message.timestamp()[1],
            )

    def _compare_jobs(self) -> None:
        """Jobs that are missed for the second time, when the fold has read on, are handed in again."""
        horizon = self._inbox.clock.now_ms() - int(self._settings.reconcile_after_seconds * 1000)
        inbox_end: int | None = None
        folded = self._view.folded()
        for job_id, accepted in list(self._accepted.items()):
            if self._view.knows(job_id):
                del self._accepted[job_id]
            elif accepted.heard_ms > horizon:
                continue
            elif accepted.inbox_end is None:
                inbox_end = self._end_of(schedule_topic(self._kafka.domain), 0) if inbox_end is None else inbox_end
                accepted.inbox_end = inbox_end
            elif folded >= accepted.inbox_end:
                accepted.inbox_end = None
                self._hand_in(job_id, accepted)

    def _hand_in(self, job_id: str, accepted: Accepted) -> None:
        accepted.tries += 1
        found = self._find_request(accepted.event)
        if found is None or accepted.tries > TRIES:
            outcome = "request_not_found" if found is None else "not_taken"
            del self._accepted[job_id]
            self._tell("job_given_up", job_id, {"outcome": outcome})
            return
        request, raw = found
        event = accepted.event
        ready = stage_ready(request, raw, tier=event["tier"] or "free", at_ms=event["at"])
        _resume(ready, accepted.finished)
        entry = self._inbox.entry("stage_ready", ready=ready)
        self._inbox.append("reconciler", entry)
        detail = {"user_id": event["user_id"], "accepted_at": str(event["at"]), "stage": ready["stage"]}
        self._tell("job_handed_in", job_id, detail)

    def _find_request(self, event: Record) -> tuple[Record, bytes] | None:
        """The request that the event speaks of. A refused one may have had the same job id: creation times tell."""
        windows = (
            (event["at"] - AROUND_MS, event["at"] + AROUND_MS),
            (event["created_at"] - AROUND_MS, event["created_at"] + AFTER_CREATION_MS),
        )
        for first, last in windows:
            for message in self._between(requests_topic(event["workflow"]), first, last):
                value = message.value()
                if not isinstance(value, bytes) or event["job_id"].encode() not in value:
                    continue
                try:
                    request = self._codec.decode_strict(value, "job_requested")
                except CodecError:
                    continue
                if all(request[name] == event[name] for name in ("job_id", "user_id", "created_at")):
                    return request, value
        return None

    def _between(self, topic: str, first_ms: int, last_ms: int) -> Iterator[Message]:
        """Records of all partitions with times in a window. Upstream producers may spread keys in their own way."""
        consumer = Consumer(consumer_config(self._kafka, "meshyard-read"))
        try:
            partitions = partition_count(self._kafka, topic)
            starts = offsets_at(consumer, topic, partitions, first_ms)
            ends = offsets_at(consumer, topic, partitions, last_ms + 1)
        finally:
            consumer.close()
        for partition, (start, end) in enumerate(zip(starts, ends, strict=True)):
            if start < end:
                yield from read_range(self._kafka, topic, partition, start=start, end=end)

    def _commit(self, consumer: Consumer) -> None:
        """The next life reads from the oldest event that still waits here."""
        offsets = {p.partition: p.offset for p in consumer.position(consumer.assignment())}
        for accepted in self._accepted.values():
            offsets[accepted.partition] = min(offsets[accepted.partition], accepted.offset)
        places = [TopicPartition(EVENTS, partition, offset) for partition, offset in offsets.items() if offset >= 0]
        if places:
            consumer.commit(offsets=places, asynchronous=False)

    # ---- slots --------------------------------------------------------------------------------------------------

    def _compare_slots(self) -> None:
        """Slots that do not name what they should have, and slots that nobody knows, are fenced."""
        folded = self._view.folded()  # before the rest: what is believed must not be older than what was read
        in_hand, now = self._view.in_hand(), self._inbox.clock.monotonic_seconds()

        def inbox_end() -> int:
            return self._end_of(schedule_topic(self._kafka.domain), 0)

        def work_end(slot: int) -> int:
            return self._end_of(work_topic(self._kafka.domain), slot)

        lost = self._disputes.compare(in_hand, now=now, folded=folded, work_end=work_end, inbox_end=inbox_end)
        for (slot, epoch), dispatches in lost.items():
            self._fence(slot, epoch)
            detail = {"slot": str(slot), "epoch": str(epoch), "dispatches": " ".join(sorted(dispatches))[:2_000]}
            self._tell("slot_fenced", f"slot-{slot}", detail)
        for slot, epoch in self._disputes.strangers(in_hand, now=now, folded=folded, inbox_end=inbox_end):
            self._fence(slot, epoch)
            self._tell("stranger_fenced", f"slot-{slot}", {"slot": str(slot), "epoch": str(epoch)})

    def _end_of(self, topic: str, partition: int) -> int:
        """Where the next record will stand, open transactions included: what comes before it may yet be committed."""
        if self._lookup is None:
            config = {**consumer_config(self._kafka, "meshyard-read"), "isolation.level": "read_uncommitted"}
            self._lookup = Consumer(config)
        return int(self._lookup.get_watermark_offsets(TopicPartition(topic, partition), timeout=30)[1])

    def _tell(self, repair: str, subject: str, detail: Mapping[str, str]) -> None:
        self.repairs[repair] = self.repairs.get(repair, 0) + 1
        log.warning("repair", repair=repair, subject=subject, count=self.repairs[repair], **detail)
        self._inbox.tell("repair", subject, {"repair": repair, **detail})


def _resume(ready: Record, finished: Mapping[int, list[Record]]) -> None:
    """Moves a StageReady to the stage after those that succeeded, with their artefacts."""
    stages = [stage.name for stage in PIPELINES[ready["pipeline_id"]].stages]
    index = stages.index(ready["stage"])
    while index in finished and index + 1 < len(stages):
        ready["artefacts"] = [*ready["artefacts"], *finished[index]]
        index += 1
    ready["stage"] = stages[index]


def offsets_at(consumer: Consumer, topic: str, partitions: int, at_ms: int) -> list[int]:
    """By partition: the first offset with a time of at least `at_ms`; the partition's end when there is none."""
    asked = [TopicPartition(topic, partition, max(0, at_ms)) for partition in range(partitions)]
    offsets = []
    for place in consumer.offsets_for_times(asked, timeout=30):
        offset = place.offset
        if offset < 0:
            offset = int(consumer.get_watermark_offsets(TopicPartition(topic, place.partition), timeout=30)[1])
        offsets.append(offset)
    return offsets
