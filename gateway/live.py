"""Reads what lives in memory only: answers, progress and load, which matter while they are new, and control.tenants,
which is read whole at each start. It waits for nothing: a request's user waits for the answer."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Message, TopicPartition

from gateway.reading import Reader, key_of
from gateway.tables import Place
from schemas.codec import Codec, Record
from schemas.topics import ANSWERS, LOAD, PROGRESS, TENANTS
from streams.kafka.settings import KafkaSettings

_TOPICS: Final = (TENANTS, ANSWERS, PROGRESS, LOAD)


@dataclass(kw_only=True)
class LiveBatch:
    """What one poll brought; tenants by user, None for one who was removed."""

    answers: list[Record] = field(default_factory=list)
    progress: list[Record] = field(default_factory=list)
    loads: list[Record] = field(default_factory=list)
    tenants: list[tuple[str, Record | None]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.answers or self.progress or self.loads or self.tenants)


class LiveListener(Protocol):
    """Who is told; every call comes on the event loop, in the order of reading."""

    def on_live(self, batch: LiveBatch) -> None:
        """Records of live topics and of control.tenants."""

    def on_tenants_loaded(self) -> None:
        """All of control.tenants as it stood at the start has been handed over."""

    def on_failed(self, error: Exception) -> None:
        """A reader has ended and will not come back."""


class LiveReader(Reader):
    """The thread that reads what is live."""

    def __init__(self, settings: KafkaSettings, name: str, codec: Codec, listener: LiveListener) -> None:
        super().__init__(settings, f"{name}-live", _TOPICS, listener.on_failed)
        self._codec = codec
        self._listener = listener
        self._behind: set[Place] = set()
        self._batch = LiveBatch()
        self._readers: dict[str, Callable[[Message], None]] = {
            ANSWERS: self._take_answers,
            PROGRESS: lambda m: self._batch.progress.append(codec.decode(m.value(), "job_progress")),
            LOAD: lambda m: self._batch.loads.append(codec.decode(m.value(), "domain_load")),
            TENANTS: self._take_tenant,
        }

    def _read(self) -> None:
        consumer = self._consumer({})
        try:
            places, _ = self._wait_for_topics(consumer)
            self._behind = {place for place in places if place[0] == TENANTS}
            consumer.assign(
                [TopicPartition(*place, OFFSET_BEGINNING if place in self._behind else OFFSET_END) for place in places]
            )
            self.connected = bool(places)
            while not self._stop.is_set():
                self._batch = LiveBatch()
                ends: list[Place] = []
                for _ in self._sorted(self._poll(consumer, 0.25), ends):
                    pass
                if self._batch:
                    self._tell(self._listener.on_live, self._batch)
                if self._behind.intersection(ends):
                    self._behind.difference_update(ends)
                    if not self._behind:
                        self._tell(self._listener.on_tenants_loaded)
        finally:
            consumer.close()

    def _take(self, message: Message, place: Place) -> None:
        self._readers[place[0]](message)

    def _take_answers(self, message: Message) -> None:
        self._batch.answers += self._codec.decode(message.value(), "admission_answers")["answers"]

    def _take_tenant(self, message: Message) -> None:
        value = message.value()
        if value is None:
            self._batch.tenants.append((key_of(message), None))
        else:
            tenant = self._codec.decode(value, "tenant")
            self._batch.tenants.append((tenant["user_id"], tenant))
