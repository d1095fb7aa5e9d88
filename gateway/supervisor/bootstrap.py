"""What a fresh installation needs before its roles start: topics, and the user `local` with a key."""

import os
import time
from dataclasses import replace
from typing import Final

import structlog
from confluent_kafka import KafkaException, Producer

from gateway.keys import new_api_key
from gateway.supervisor.layout import Layout, write_secret
from schemas.codec import Codec
from schemas.topics import TENANTS, catalogue, schedule_topic
from streams.agents.groups import scheduler_group
from streams.anew import SchedulerRuns, begin_anew
from streams.clock import SystemClock
from streams.kafka.admin import create_topics
from streams.kafka.consumer import committed_offset
from streams.kafka.producer import producer_config
from streams.kafka.settings import KafkaSettings
from streams.objects import ObjectStore
from streams.snapshots import SnapshotOfOtherVersion, SnapshotsMissing, SnapshotStore

LOCAL_USER: Final = "local"
ACK_SECONDS: Final = 30.0
LEAVE_SECONDS: Final = 30.0

log = structlog.get_logger(__name__)


def prepare(settings: KafkaSettings, layout: Layout) -> None:
    """Create the topics that are missing and, once, the user `local`; queues that an older release left behind, which
    this one cannot go on with, are begun anew.

    Raises TopicMismatch when the installation has another number of user partitions, KafkaException.
    """
    create_topics(settings, catalogue(domains=settings.every_domain))
    for domain in settings.every_domain:
        _go_on(replace(settings, domain=domain), layout)
    if not layout.key_file.exists():
        _create_local_user(settings, layout)


def _go_on(settings: KafkaSettings, layout: Layout) -> None:
    """Nobody else runs the stack's schedulers, so it may decide alone that a queue is begun anew: open jobs are handed
    in again, and no job that has ended."""
    snapshots = SnapshotStore(ObjectStore(layout.objects_url), settings.domain)
    committed = committed_offset(settings, scheduler_group(settings.domain), schedule_topic(settings.domain), 0)
    try:
        snapshots.newest(committed or 0)
        return
    except (SnapshotOfOtherVersion, SnapshotsMissing) as error:
        log.warning("queue of another release", domain=settings.domain, error=str(error))
    deadline = time.monotonic() + LEAVE_SECONDS
    while True:
        try:
            begin_anew(settings, snapshots, SystemClock())
            return
        except SchedulerRuns:  # the broker remembers the last life's members for a while
            if time.monotonic() > deadline:
                raise
            time.sleep(1.0)


def _create_local_user(settings: KafkaSettings, layout: Layout) -> None:
    """The key file gets its place only when Kafka has the user, so that a crash between leaves no dead key."""
    text, key = new_api_key()
    tenant = {
        "user_id": LOCAL_USER,
        "tier": "pro",
        "weight": 1.0,
        "requests_per_minute": 600.0,
        "burst_requests": 1000,
        "scopes": ["jobs", "synthetic"],
        "keys": [key],
        "updated_at": time.time_ns() // 1_000_000,
    }
    fresh = layout.key_file.with_name("local.key.new")
    write_secret(fresh, text)
    failures: list[KafkaException] = []
    producer = Producer(producer_config(settings))
    producer.produce(
        TENANTS,
        key=LOCAL_USER,
        value=Codec().encode("tenant", tenant),
        on_delivery=lambda error, _: failures.append(KafkaException(error)) if error else None,
    )
    if producer.flush(ACK_SECONDS):
        raise TimeoutError(f"Kafka did not take the user {LOCAL_USER} within {ACK_SECONDS:.0f} s")
    if failures:
        raise failures[0]
    os.replace(fresh, layout.key_file)
