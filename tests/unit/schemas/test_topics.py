"""The catalogue of topics is consistent, and the documentation shows it as it is."""

import subprocess
import sys
from pathlib import Path

import pytest

from schemas.pipelines import WORKFLOWS
from schemas.registry import bundled
from schemas.topics import (
    ADMISSION_HELD_CHANGELOG,
    ADMISSION_JOBS_CHANGELOG,
    COMMANDS,
    DEAD,
    FOREVER,
    TENANTS,
    TICKS,
    USERS_CLOSED,
    Topic,
    catalogue,
    markdown_table,
    requests_topic,
    schedule_topic,
    work_topic,
)

TOPICS = {topic.name: topic for topic in catalogue()}
CHANGELOGS = (ADMISSION_JOBS_CHANGELOG, ADMISSION_HELD_CHANGELOG)
ARCHITECTURE = Path(__file__).parents[3] / "docs" / "architecture.md"
each_topic = pytest.mark.parametrize("name", TOPICS)


def test_names_are_unique() -> None:
    assert len(TOPICS) == len(catalogue())


@each_topic
def test_a_topics_record_has_a_schema(name: str) -> None:
    record = TOPICS[name].record
    if record is not None:
        assert bundled().latest(record).name == record


def test_every_schema_has_a_topic() -> None:
    inside_another = {"admission_answer"}  # written on its own by earlier releases; now part of admission_answers
    assert {version.name for version in bundled().all()} - inside_another == {
        topic.record for topic in TOPICS.values() if topic.record
    }


def test_only_fausts_own_topics_have_no_schema() -> None:
    bare = {name for name, topic in TOPICS.items() if topic.record is None}
    assert bare == set(CHANGELOGS)
    assert all(TOPICS[name].compacted for name in bare)


@each_topic
def test_a_topic_is_described(name: str) -> None:
    topic = TOPICS[name]
    assert topic.doc.endswith(".")
    assert topic.key
    assert topic.producers
    assert topic.consumers
    assert topic.partitions is None or topic.partitions > 0


@each_topic
def test_what_is_kept_for_ever_is_compacted(name: str) -> None:
    topic = TOPICS[name]
    assert topic.retention_ms > 0 or (topic.retention_ms == FOREVER and topic.compacted)


def test_all_that_admission_reads_is_partitioned_alike() -> None:
    """One shard then owns a user's requests, commands, row and ticks."""
    for name in (requests_topic("text-to-3d"), COMMANDS, TENANTS, TICKS, USERS_CLOSED, *CHANGELOGS):
        assert TOPICS[name].partitions is None


def test_the_broker_stamps_what_admission_takes_its_time_from() -> None:
    for name in (requests_topic("text-to-3d"), COMMANDS, TICKS, USERS_CLOSED):
        assert TOPICS[name].config["message.timestamp.type"] == "LogAppendTime"


def test_the_inbox_is_one_sequence_and_outlives_its_snapshots() -> None:
    inbox = TOPICS[schedule_topic("main")]
    assert inbox.partitions == 1
    assert inbox.retention_ms > 24 * 3_600_000
    assert not inbox.compacted


def test_a_dead_letter_may_be_larger_than_what_it_holds() -> None:
    assert int(TOPICS[DEAD].config["max.message.bytes"]) > 1024 * 1024


def test_domains_and_workflows_have_topics_of_their_own() -> None:
    names = {t.name for t in catalogue(domains=("eu", "us"), workflows=("text-to-3d", "image-to-3d"))}
    for domain in ("eu", "us"):
        assert {schedule_topic(domain), work_topic(domain)} <= names
    assert {"requests.text-to-3d", "requests.image-to-3d"} <= names
    assert schedule_topic("main") not in names


def test_the_default_catalogue_serves_the_workflows_that_are_offered() -> None:
    assert {requests_topic(workflow) for workflow in WORKFLOWS} <= set(TOPICS)


def test_the_documentation_shows_the_catalogue() -> None:
    """Renew it with `python -m schemas.topics`."""
    assert markdown_table(catalogue()) in ARCHITECTURE.read_text()


def test_the_command_prints_the_table() -> None:
    printed = subprocess.run([sys.executable, "-m", "schemas.topics"], capture_output=True, text=True, check=True)
    assert printed.stdout == markdown_table(catalogue())


def test_how_long_a_topic_is_kept_reads_well() -> None:
    def kept(retention_ms: int) -> str:
        topic = Topic(name="t", key="k", record=None, partitions=1, retention_ms=retention_ms, doc="D.")
        return markdown_table([topic]).splitlines()[2].split(" | ")[4]

    assert [kept(ms) for ms in (FOREVER, 3_600_000, 86_400_000, 90 * 86_400_000)] == ["for ever", "1 h", "1 d", "90 d"]
