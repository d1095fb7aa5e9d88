"""Begins a domain's queue anew, for when it cannot be rebuilt: an empty state at the place where the scheduler stopped.

What was decided before is done and not folded again. The reconciler then hands in every open job of the last 24 hours,
at the stage that it had reached, and fences slots that the new queue does not know, so that they join it.
"""

import structlog
from confluent_kafka import Consumer, ConsumerGroupState, TopicPartition
from confluent_kafka.admin import AdminClient

from schemas.topics import EVENTS, schedule_topic
from streams.agents.groups import scheduler_group
from streams.clock import Clock
from streams.kafka.consumer import committed_offset, consumer_config, partition_count
from streams.kafka.settings import KafkaSettings
from streams.policy.state import SchedulerState
from streams.reconciler import LOOK_BACK_MS, offsets_at, reconciler_group
from streams.snapshots import SnapshotStore

log = structlog.get_logger(__name__)


class SchedulerRuns(RuntimeError):
    """The domain's scheduler is running."""

    def __init__(self, domain: str) -> None:
        super().__init__(
            f"the scheduler of domain {domain} is a member of its group; stop it and wait 10 s, then try again"
        )


def begin_anew(settings: KafkaSettings, snapshots: SnapshotStore, clock: Clock) -> int:
    """Replaces all snapshots by an empty one; returns the inbox offset that it stands before. Raises SchedulerRuns."""
    domain = settings.domain
    _check_stopped(settings)
    offset = committed_offset(settings, scheduler_group(domain), schedule_topic(domain), 0) or 0
    snapshots.replace(snapshots.encode(SchedulerState(next_offset=offset, now=clock.now_ms())))
    consumer = Consumer(consumer_config(settings, reconciler_group(domain)))
    try:
        partitions = partition_count(settings, EVENTS)
        starts = offsets_at(consumer, EVENTS, partitions, clock.now_ms() - LOOK_BACK_MS)
        consumer.commit(
            offsets=[TopicPartition(EVENTS, partition, start) for partition, start in enumerate(starts)],
            asynchronous=False,
        )
    finally:
        consumer.close()
    log.warning("queue_begun_anew", domain=domain, offset=offset)
    return offset


def _check_stopped(settings: KafkaSettings) -> None:
    group = scheduler_group(settings.domain)
    client = AdminClient(settings.client())
    described = client.describe_consumer_groups([group], request_timeout=30)[group].result()
    if described.state not in (ConsumerGroupState.EMPTY, ConsumerGroupState.DEAD):
        raise SchedulerRuns(settings.domain)
