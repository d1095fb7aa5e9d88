"""The collector: a process of its own that reads jobs.events until every job of a phase has ended.

Its clock is CLOCK_MONOTONIC, one for all processes of a machine, so that its times and the submitter's compare.
"""

import signal
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Final

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from schemas.codec import Codec
from schemas.errors import CodecError
from schemas.jobs import TERMINAL_TRANSITIONS
from schemas.topics import EVENTS
from streams.kafka.consumer import consumer_config, partition_count
from streams.kafka.settings import KafkaSettings

SINK_GROUP: Final = "meshyard-sink"
SINK_SECONDS: Final = 15.0
_POLL_SECONDS: Final = 0.05
_BATCH: Final = 500
_PIECE_MS: Final = 50
_TIMEOUT_SECONDS: Final = 10.0


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """How many jobs of users with this prefix shall end, and how long to wait for that at most.

    prompt: read each record as soon as it is there, for latencies; else in larger pieces, which costs the broker less.
    """

    jobs: int
    user_prefix: str
    timeout_seconds: float
    prompt: bool


@dataclass(frozen=True, kw_only=True)
class Collected:
    """ended: when the first terminal event of each job was read (monotonic ns), with its transition; repeated: further
    terminal events of the same jobs; sink_stored: whether the sink had committed all of it at the end."""

    ended: dict[str, tuple[int, str]]
    repeated: int
    sink_stored: bool


def collect(kafka: KafkaSettings, pipe: Connection) -> None:
    """The process: for each Wanted says "reading" and then what it Collected, until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one who started it ends it
    reader = consumer_config(kafka, "meshyard-bench")
    consumers = {
        True: Consumer(reader),
        False: Consumer({**reader, "fetch.min.bytes": 65_536, "fetch.wait.max.ms": _PIECE_MS}),
    }
    sink = Consumer(consumer_config(kafka, SINK_GROUP))
    codec = Codec()
    places = [TopicPartition(EVENTS, number) for number in range(partition_count(kafka, EVENTS))]
    try:
        while True:
            wanted: Wanted = pipe.recv()
            consumer = consumers[wanted.prompt]
            for place in places:
                _, place.offset = consumer.get_watermark_offsets(place, timeout=_TIMEOUT_SECONDS)
            consumer.assign(places)
            consumer.poll(0)
            pipe.send("reading")
            reading = _Reading(codec, wanted)
            reading.read(consumer)
            consumer.unassign()
            stored = _wait_for_sink(sink, reading.following)
            pipe.send(Collected(ended=reading.ended, repeated=reading.repeated, sink_stored=stored))
    except (EOFError, BrokenPipeError):
        pass
    finally:
        for consumer in (*consumers.values(), sink):
            consumer.close()


class _Reading:
    """What one phase has brought so far. following: the offset after the last record of each partition."""

    def __init__(self, codec: Codec, wanted: Wanted) -> None:
        self.ended: dict[str, tuple[int, str]] = {}
        self.repeated = 0
        self.following: dict[int, int] = {}
        self._codec = codec
        self._wanted = wanted

    def read(self, consumer: Consumer) -> None:
        """Reads until every job has ended or the time is over."""
        deadline = time.monotonic() + self._wanted.timeout_seconds
        while len(self.ended) < self._wanted.jobs and time.monotonic() < deadline:
            first = consumer.poll(_POLL_SECONDS)
            if first is None:
                continue
            messages = [first, *consumer.consume(_BATCH, 0)]
            at = time.monotonic_ns()
            for message in messages:
                if message.error() is None:
                    self._take(message, at)

    def _take(self, message: Message, at: int) -> None:
        value = message.value()
        self.following[message.partition() or 0] = (message.offset() or 0) + 1
        try:
            event = self._codec.decode(value if isinstance(value, bytes) else None, "job_event")
        except CodecError:
            return  # a stranger's record is no end of a job of ours
        if event["transition"] in TERMINAL_TRANSITIONS and event["user_id"].startswith(self._wanted.user_prefix):
            self.repeated += event["job_id"] in self.ended
            self.ended.setdefault(event["job_id"], (at, event["transition"]))


def _wait_for_sink(sink: Consumer, following: dict[int, int]) -> bool:
    """Waits until what was read is in ClickHouse as well: that work belongs to the jobs."""
    deadline = time.monotonic() + SINK_SECONDS
    while time.monotonic() < deadline:
        try:
            committed = sink.committed(
                [TopicPartition(EVENTS, number) for number in following], timeout=_TIMEOUT_SECONDS
            )
        except KafkaException:  # its coordinator moves; asked again
            committed = []
        if committed and all(place.offset >= following[place.partition] for place in committed):
            return True
        time.sleep(0.1)
    return False
