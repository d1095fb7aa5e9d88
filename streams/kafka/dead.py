"""Dead letters: a record that could not be used, whole, with the reason."""

from confluent_kafka import Message

from schemas.codec import Record
from schemas.topics import DEAD
from streams.kafka.producer import Outgoing


def dead_letter(
    place: tuple[str, int, int], key: bytes | None, value: bytes | None, *, reason: str, detail: str, **more: int | str
) -> Record:
    """A DeadLetter record. `place`: topic, partition, offset; `more`: schema_id, attempts, role, at (milliseconds)."""
    return {
        "topic": place[0],
        "partition": place[1],
        "offset": place[2],
        "key": key,
        "value": value,
        "reason": reason,
        "detail": detail[:2000],
        "schema_id": more.get("schema_id"),
        "attempts": more.get("attempts", 1),
        "role": more["role"],
        "at": more["at"],
    }


def dead_key(place: tuple[str, int, int]) -> str:
    """Key of a dead letter: where the record stood, so that a repeat is seen as one."""
    return f"{place[0]}/{place[1]}/{place[2]}"


def dead_record(message: Message) -> tuple[tuple[str, int, int], bytes | None, bytes | None]:
    """Place, key and value of a confluent message, for dead_letter()."""
    key, value = message.key(), message.value()
    place = (message.topic() or "", message.partition() or 0, message.offset() or 0)
    return place, key.encode() if isinstance(key, str) else key, value.encode() if isinstance(value, str) else value


def outgoing_dead(place: tuple[str, int, int], encoded: bytes) -> Outgoing:
    """The send of an encoded dead letter."""
    return Outgoing(DEAD, dead_key(place), encoded)
