"""The catalogue of topics: who writes and reads each, what it holds, how it is kept. Auto-creation is off.

`python -m schemas.topics` prints it as the table that stands in docs/architecture.md.
"""

from dataclasses import dataclass, field
from typing import Final

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
FOREVER: Final = -1

# Slots of a domain at first: each is a partition of the domain's work topic.
WORK_PARTITIONS: Final = 64


@dataclass(frozen=True, kw_only=True)
class Topic:
    """One reviewed topic.

    key: what the record key is (partitions follow it); record: name of the value's schema, None for Faust's own
    changelogs; partitions: a number, or None for P, the user partitions, fixed at installation; retention_ms: -1
    keeps for ever; compacted: only the newest record of a key is kept.
    """

    name: str
    key: str
    record: str | None
    partitions: int | None
    retention_ms: int
    doc: str
    compacted: bool = False
    producers: tuple[str, ...] = ()
    consumers: tuple[str, ...] = ()
    config: dict[str, str] = field(default_factory=dict)


# The broker's clock stamps these: decisions that take the record's time as `now` come out the same in a replay.
_APPEND_TIME: Final = {"message.timestamp.type": "LogAppendTime"}


def requests_topic(workflow: str) -> str:
    """Where requests of a workflow go."""
    return f"requests.{workflow}"


def schedule_topic(domain: str) -> str:
    """The inbox of a domain's scheduler."""
    return f"schedule.{domain}"


def work_topic(domain: str) -> str:
    """Work of a domain; partition n belongs to slot n."""
    return f"work.{domain}"


COMMANDS: Final = "commands"
TENANTS: Final = "control.tenants"
TICKS: Final = "admission.ticks"
ANSWERS: Final = "admission.answers"
EVENTS: Final = "jobs.events"
PROGRESS: Final = "jobs.progress"
DEAD: Final = "jobs.dead"
HEARTBEATS: Final = "slots.heartbeats"
LOAD: Final = "control.load"
ROUTING: Final = "control.routing"
USERS_CLOSED: Final = "users.closed"
PLATFORM_EVENTS: Final = "platform.events"
DEAD_ACTIONS: Final = "jobs.dead.actions"
# Tables of admission; named explicitly and shared by all its shards.
ADMISSION_JOBS_CHANGELOG: Final = "admission.jobs.changelog"
ADMISSION_HELD_CHANGELOG: Final = "admission.held.changelog"


def catalogue(*, domains: tuple[str, ...] = ("main",), workflows: tuple[str, ...] = ("text-to-3d",)) -> list[Topic]:
    """Every topic of an installation."""
    topics = [
        Topic(
            name=requests_topic(workflow), key="user_id", record="job_requested", partitions=None,
            retention_ms=90 * DAY_MS, producers=("gateway", "upstream products"), consumers=("admission", "gateway"),
            doc="Requests for models; long kept, because A/B tests replay them.", config=_APPEND_TIME,
        )
        for workflow in workflows
    ]  # fmt: skip
    for domain in domains:
        topics += [
            Topic(
                name=schedule_topic(domain), key="any", record="inbox_batch", partitions=1,
                retention_ms=7 * DAY_MS,
                producers=("admission", "worker", "slot monitor", "scheduler (ticks, routing, policy)"),
                consumers=("scheduler",),
                doc="The scheduler's inbox: its journal as well; kept longer than the time between two snapshots.",
            ),
            Topic(
                name=work_topic(domain), key="slot", record="work_batch", partitions=WORK_PARTITIONS,
                retention_ms=DAY_MS, producers=("scheduler",), consumers=("worker",),
                doc="Work and controls; partition n is read by slot n alone.",
            ),
        ]  # fmt: skip
    topics += [
        Topic(
            name=COMMANDS, key="user_id", record="command", partitions=None, retention_ms=7 * DAY_MS,
            producers=("gateway",), consumers=("admission",), config=_APPEND_TIME,
            doc="What users want done with their jobs: cancel, reprioritise, pause, resume.",
        ),
        Topic(
            name=USERS_CLOSED, key="user_id", record="user_closed", partitions=None, retention_ms=7 * DAY_MS,
            producers=("scheduler",), consumers=("admission",), config=_APPEND_TIME,
            doc="Jobs that have ended, so that admission counts a user's backlog down.",
        ),
        Topic(
            name=TENANTS, key="user_id", record="tenant", partitions=None, retention_ms=FOREVER, compacted=True,
            producers=("meshyard up", "operators"), consumers=("admission", "gateway"),
            doc="Tier, weight, limits, scopes and hashed API keys of each user.",
        ),
        Topic(
            name=TICKS, key="none; one for each partition", record="admission_tick", partitions=None,
            retention_ms=HOUR_MS, producers=("admission",), consumers=("admission",), config=_APPEND_TIME,
            doc="Time, as events.",
        ),
        Topic(
            name=ANSWERS, key="none", record="admission_answers", partitions=1, retention_ms=HOUR_MS,
            producers=("admission",), consumers=("gateway",),
            doc="What admission says to those who asked, many answers a record.",
        ),
        Topic(
            name=EVENTS, key="job_id", record="job_event", partitions=None, retention_ms=365 * DAY_MS,
            producers=("admission", "scheduler", "worker"), consumers=("gateway", "sink"),
            doc="One record for each transition of a job.",
        ),
        Topic(
            name=PROGRESS, key="job_id", record="job_progress", partitions=1, retention_ms=HOUR_MS,
            producers=("worker",), consumers=("gateway",), doc="Live progress; each worker sends two a second at most.",
        ),
        Topic(
            name=HEARTBEATS, key="slot", record="slot_heartbeat", partitions=1, retention_ms=HOUR_MS,
            producers=("worker",), consumers=("slot monitor", "gateway"), doc="Signs of life of slots.",
        ),
        Topic(
            name=LOAD, key="domain", record="domain_load", partitions=1, retention_ms=DAY_MS, compacted=True,
            producers=("scheduler",), consumers=("gateway", "admission"),
            doc="How each domain stands, each second.",
        ),
        Topic(
            name=ROUTING, key="name", record="routing_rule", partitions=1, retention_ms=FOREVER, compacted=True,
            producers=("operators", "scheduler (guard)"), consumers=("scheduler", "operators"),
            doc="Which model versions serve a stage, and in what shares.",
        ),
        Topic(
            name=PLATFORM_EVENTS, key="subject", record="platform_event", partitions=1, retention_ms=365 * DAY_MS,
            producers=("scheduler", "operators"), consumers=("operators",),
            doc="What changed the platform itself: load level, routing, policy, shards, repairs.",
        ),
        Topic(
            name=DEAD, key="job_id where known", record="dead_letter", partitions=1, retention_ms=365 * DAY_MS,
            producers=("admission", "scheduler", "worker", "sink"), consumers=("operators", "gateway"),
            doc="Records that could not be used and jobs that failed for good, whole, with the reason.",
            config={"max.message.bytes": str(2 * 1024 * 1024)},
        ),
        Topic(
            name=DEAD_ACTIONS, key="letter", record="dead_letter_action", partitions=1, retention_ms=365 * DAY_MS,
            producers=("operators",), consumers=("operators", "gateway"),
            doc="What was done with each dead letter: sent again or discarded.",
        ),
        Topic(
            name=ADMISSION_JOBS_CHANGELOG, key="partition/topic/batch", record=None, partitions=None,
            retention_ms=FOREVER, compacted=True, producers=("admission",), consumers=("admission",),
            doc="Faust table: what each batch of decisions must remember, token buckets included.",
        ),
        Topic(
            name=ADMISSION_HELD_CHANGELOG, key="user_id/job_id", record=None, partitions=None, retention_ms=FOREVER,
            compacted=True, producers=("admission",), consumers=("admission",),
            doc="Faust table: jobs that wait for their time, for a newer one or for a token.",
        ),
    ]  # fmt: skip
    return topics


def _kept(topic: Topic) -> str:
    if topic.compacted:
        return "newest of each key"
    if topic.retention_ms == FOREVER:
        return "for ever"
    days, hours = divmod(topic.retention_ms // HOUR_MS, 24)
    return f"{days} d" if days else f"{hours} h"


def markdown_table(topics: list[Topic]) -> str:
    """The topics as a table for the documentation."""
    lines = [
        "| topic | key | partitions | value | kept | written by | read by | what it is |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for topic in topics:
        cells = (
            f"`{topic.name}`",
            topic.key,
            "P" if topic.partitions is None else str(topic.partitions),
            f"`{topic.record}`" if topic.record else "Faust's own",
            _kept(topic),
            ", ".join(topic.producers),
            ", ".join(topic.consumers),
            topic.doc,
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(markdown_table(catalogue()), end="")
