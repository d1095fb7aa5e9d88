"""Another number of admission shards: each partition's offsets move from the old groups to the new ones.

The rows stand in changelogs that all shards share, so offsets are all that moves. It needs that no shard runs.
"""

import time
from typing import Any, Final, cast

from confluent_kafka import Consumer, ConsumerGroupState, ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient

from schemas.codec import Codec
from schemas.events import platform_event
from schemas.topics import PLATFORM_EVENTS
from streams.agents.admission import admission_group, input_topics
from streams.kafka.consumer import consumer_config
from streams.kafka.producer import Outgoing
from streams.kafka.settings import KafkaSettings

GROUP_PREFIX: Final = "meshyard-admission-"
ASK_SECONDS: Final = 30.0
_GONE: Final = (ConsumerGroupState.EMPTY, ConsumerGroupState.DEAD, ConsumerGroupState.UNKNOWN)


class ShardsAlive(RuntimeError):
    """Admission shards still run, or ended less than their session's time ago."""

    def __init__(self, groups: list[str]) -> None:
        self.groups = groups
        super().__init__(f"these groups still have members: {', '.join(groups)}; stop admission, then try again")


class ShardsNeverRan(RuntimeError):
    """There is nothing to move: the groups have committed nothing."""

    def __init__(self, shards: int, others: list[int]) -> None:
        self.shards = shards
        found = f"; there are offsets of {', '.join(map(str, others))} shards" if others else ""
        super().__init__(f"admission never ran with {shards} shards{found}")


class WrongShards(RuntimeError):
    """Admission ran with another number of shards, whose offsets this one does not have."""

    def __init__(self, shards: int, others: list[int]) -> None:
        self.shards = shards
        super().__init__(
            f"admission ran with {' or '.join(map(str, others))} shards, not with {shards}; "
            f"move the offsets first: meshyard shards resize {shards} --from {others[-1]}"
        )


def resize(settings: KafkaSettings, old: int, new: int, patience_seconds: float = 15.0) -> dict[tuple[str, int], int]:
    """Copies what the groups of `old` shards have committed to those of `new` ones: topic and partition -> offset.

    The old groups keep theirs. Raises ShardsAlive when a group of either number has members for longer than
    `patience_seconds` (a stopped member stays one until its session ends), ShardsNeverRan, KafkaException.
    """
    client = AdminClient(settings.client())
    groups = {admission_group(shard, count) for count in (old, new) for shard in range(count)}
    deadline = time.monotonic() + patience_seconds
    while alive := _alive(client, sorted(groups)):
        if time.monotonic() > deadline:
            raise ShardsAlive(alive)
        time.sleep(0.5)
    moved = committed(settings, old)
    if not moved:
        raise ShardsNeverRan(old, [count for count in known_shards(settings) if count != old])
    # What an earlier time with so many shards left behind must not stay where nothing is copied to.
    stale = _existing(client, new)
    for future in client.delete_consumer_groups(stale).values() if stale else ():
        future.result(ASK_SECONDS)
    for shard in range(new):
        mine = [
            TopicPartition(topic, partition, offset)
            for (topic, partition), offset in moved.items()
            if partition % new == shard
        ]
        if mine:
            asked = client.alter_consumer_group_offsets(
                [ConsumerGroupTopicPartitions(admission_group(shard, new), mine)]
            )
            for future in asked.values():
                future.result(ASK_SECONDS)
    return moved


def resize_event(codec: Codec, old: int, new: int, *, by: str, reason: str, at: int) -> Outgoing:
    """The platform event of a resize."""
    detail = {"from": old, "to": new, "changed_by": by, "reason": reason}
    told = platform_event("shards", domain="", subject="admission", detail=detail, at=at)
    return Outgoing(PLATFORM_EVENTS, "admission", codec.encode("platform_event", told))


def committed(settings: KafkaSettings, shards: int) -> dict[tuple[str, int], int]:
    """What the groups of so many shards have committed."""
    found: dict[tuple[str, int], int] = {}
    for shard in range(shards):
        consumer = Consumer(consumer_config(settings, admission_group(shard, shards)))
        places = [
            TopicPartition(topic, partition)
            for topic in input_topics()
            for partition in range(shard, settings.user_partitions, shards)
        ]
        try:
            for place in consumer.committed(places, timeout=ASK_SECONDS) if places else ():
                if place.offset >= 0:
                    found[(place.topic, place.partition)] = place.offset
        finally:
            consumer.close()
    return found


def known_shards(settings: KafkaSettings) -> list[int]:
    """Numbers of shards that have committed something, in the order of their sums of offsets: the last one ran last."""
    client = AdminClient(settings.client())
    counts = {int(group.rpartition("-")[2]) for group in _admission_groups(client)}
    sums = {count: sum(committed(settings, count).values()) for count in counts}
    return sorted((count for count, total in sums.items() if total), key=lambda count: sums[count])


def check_shards(settings: KafkaSettings, shards: int) -> None:
    """Raises WrongShards when this number has committed nothing and another has: it would decide everything anew."""
    if committed(settings, shards):
        return
    others = known_shards(settings)
    if others:
        raise WrongShards(shards, others)


def _existing(client: AdminClient, shards: int) -> list[str]:
    names = {admission_group(shard, shards) for shard in range(shards)}
    return sorted(names & set(_admission_groups(client)))


def _admission_groups(client: AdminClient) -> list[str]:
    found: Any = client.list_consumer_groups().result(ASK_SECONDS)
    names = [group.group_id for group in found.valid if group.group_id.startswith(GROUP_PREFIX)]
    return [name for name in names if name.rpartition("-")[2].isdigit()]


def _alive(client: AdminClient, groups: list[str]) -> list[str]:
    asked = client.describe_consumer_groups(groups)
    return [name for name, future in asked.items() if cast(Any, future.result(ASK_SECONDS)).state not in _GONE]
