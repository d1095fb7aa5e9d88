"""The sink as a process, against real Kafka and ClickHouse: kills, aborted transactions, poison, outages."""

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import fastavro
import pytest
from clickhouse_driver import Client
from clickhouse_driver.errors import ServerException
from confluent_kafka import Message, Producer

from analytics.client import Analytics, QueryRefusedError, connect
from analytics.intents import Intent, Source
from analytics.records import Raw, Row, is_row
from analytics.settings import SinkSettings
from analytics.sink import Sink
from analytics.store import Store
from analytics.verify import PartitionReport, verify
from schemas.codec import Codec, Record
from schemas.registry import bundled
from streams.clock import SystemClock
from streams.kafka.dead import dead_record
from streams.kafka.settings import KafkaSettings
from tests.integration.analytics.history import PRICES, Expected, job_history
from tests.support.clickhouse import EXISTING_URL, ServerProcess
from tests.support.kafka import KafkaTopics, produce, read_topic

WAIT_SECONDS = 90.0
UNKNOWN_TABLE = 60
PARTITIONS = 2
codec = Codec()


class SinkProcesses:
    """Starts sinks of one test's topics; all are killed at its end."""

    def __init__(self, topics: KafkaTopics, log_file: Path) -> None:
        self.kafka = KafkaSettings(bootstrap=topics.bootstrap)
        self.events = topics.create("jobs.events", PARTITIONS)
        self.dead = topics.create("jobs.dead")
        self.group = topics.group("sink")
        self.log_file = log_file
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, url: str, **environ: str) -> subprocess.Popen[bytes]:
        with self.log_file.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "analytics"],
                stderr=log,
                env={
                    **os.environ,
                    "MESHYARD_KAFKA_BOOTSTRAP": self.kafka.bootstrap,
                    "MESHYARD_CLICKHOUSE_URL": url,
                    "MESHYARD_SINK_TOPIC": self.events,
                    "MESHYARD_SINK_DEAD_TOPIC": self.dead,
                    "MESHYARD_SINK_GROUP": self.group,
                    **environ,
                },
            )
        self._started.append(process)
        return process

    def log(self) -> str:
        return self.log_file.read_text()

    def reports(self, url: str) -> list[PartitionReport]:
        return verify(self.kafka, url, codec, self.events)

    def wait_assigned(self, times: int) -> None:
        """Until sinks have taken partitions so many times."""
        wait_until(lambda: self.log().count("partitions_assigned") >= times, self.log)

    def wait_equal(self, url: str) -> list[PartitionReport]:
        """Until ClickHouse has as many rows as Kafka has records, which must then be the same, each once."""
        rows = sum(is_row(raw_of(message), codec) for message in read_topic(self.kafka.bootstrap, self.events))
        client = connect(url)

        def is_stored() -> bool:
            try:
                ((count,),) = client.execute("SELECT count() FROM job_events")
            except ServerException as error:
                if error.code != UNKNOWN_TABLE:  # which the sink has not made yet
                    raise
                return False
            return int(count) >= rows

        wait_until(is_stored, lambda: self.log()[-3000:])
        client.disconnect()
        reports = self.reports(url)
        assert all(report.is_equal for report in reports), reports
        return reports

    def close(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.wait()


def raw_of(message: Message) -> Raw:
    (topic, partition, offset), key, value = dead_record(message)
    return Raw(topic=topic, partition=partition, offset=offset, key=key, value=value)


def wait_until(done: Callable[[], bool], told: Callable[[], str] = lambda: "") -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not done():
        assert time.monotonic() < deadline, told()
        time.sleep(0.2)


@pytest.fixture
def sinks(kafka_topics: KafkaTopics, tmp_path: Path) -> Iterator[SinkProcesses]:
    processes = SinkProcesses(kafka_topics, tmp_path / "sink.log")
    processes.log_file.touch()
    yield processes
    processes.close()


def history(seed: int, jobs: int) -> list[list[Record]]:
    """Events of many jobs, side by side, cut into transactions of a few events."""
    rng = random.Random(seed)
    open_jobs = [list(job_history(rng)) for _ in range(jobs)]
    events = []
    while open_jobs:
        job = rng.choice(open_jobs[:20])
        events.append(job.pop(0))
        if not job:
            open_jobs.remove(job)
    cuts, start = [], 0
    while start < len(events):
        size = rng.randrange(1, 24)
        cuts.append(events[start : start + size])
        start += size
    return cuts


def write(sinks: SinkProcesses, transactions: list[list[Record]], aborted_every: int) -> None:
    """Writes the transactions, and between them others that are aborted."""
    producer = Producer(
        {"bootstrap.servers": sinks.kafka.bootstrap, "transactional.id": sinks.group, "partitioner": "murmur2_random"}
    )
    producer.init_transactions(30)
    for number, events in enumerate(transactions):
        if number % aborted_every == 0:
            producer.begin_transaction()
            for event in events:
                ghost = {**event, "job_id": f"ghost-{event['job_id']}", "event_id": f"ghost-{event['event_id']}"}
                producer.produce(sinks.events, codec.encode("job_event", ghost), event["job_id"])
            producer.flush(30)
            producer.abort_transaction(30)
        producer.begin_transaction()
        for event in events:
            producer.produce(sinks.events, codec.encode("job_event", event), event["job_id"])
        producer.commit_transaction(30)


def told_by_kafka(sinks: SinkProcesses) -> Expected:
    """The fold of what stands in the topic, read without any code of the sink."""
    expected = Expected()
    for message in read_topic(sinks.kafka.bootstrap, sinks.events):
        expected.add(codec.decode(message.value(), "job_event"))
    return expected


def assert_views_agree(client: Client, expected: Expected) -> None:
    """No drift: each view says what the distinct committed events say."""
    attempts = client.execute(
        "SELECT job_id, stage, attempt, outcome, wait_seconds, run_seconds, gpu_seconds, pool, resource_class "
        "FROM stage_attempts"
    )
    assert {(row[0], row[1], row[2]): tuple(row[3:]) for row in attempts} == expected.attempts
    assert len(attempts) == len(expected.attempts)
    jobs = {row[0]: (row[1], row[2]) for row in client.execute("SELECT job_id, state, seconds FROM jobs")}
    assert jobs == expected.jobs
    orders = client.execute("SELECT job_id, lane, tier, adjustments, retry_of FROM jobs")
    assert {row[0]: tuple(row[1:]) for row in orders} == expected.orders
    times = client.execute(
        "SELECT job_id, toUnixTimestamp64Milli(held_at), toUnixTimestamp64Milli(queued_at), "
        "toUnixTimestamp64Milli(started_at) FROM jobs"
    )
    wanted = {
        job_id: tuple(found.get(kind) for kind in ("held", "queued", "started"))
        for job_id, found in expected.times.items()
    }
    assert {row[0]: tuple(row[1:]) for row in times} == wanted
    counts = client.execute("SELECT transition, sum(events) FROM event_counts GROUP BY transition")
    assert dict(counts) == expected.transitions()
    ((cost,),) = client.execute("SELECT sum(cost_usd) FROM stage_costs")
    assert cost == pytest.approx(expected.cost_usd(), rel=1e-9)
    by_lane: dict[str, float] = {}
    for (job_id, _, _), attempt in expected.attempts.items():
        if attempt[0]:
            lane = expected.orders[job_id][0]
            by_lane[lane] = by_lane.get(lane, 0.0) + attempt[3]
    shares = dict(client.execute("SELECT lane, sum(gpu_seconds) FROM gpu_minutes GROUP BY lane"))
    assert shares == pytest.approx(by_lane)
    ((ghosts,),) = client.execute("SELECT count() FROM job_events WHERE startsWith(job_id, 'ghost')")
    assert ghosts == 0


def test_kill_9_again_and_again(sinks: SinkProcesses, clickhouse_database: str) -> None:
    transactions = history(seed=7, jobs=60)
    write(sinks, transactions[:20], aborted_every=6)
    rng = random.Random(3)
    small = {"MESHYARD_SINK_BLOCK_ROWS": "15", "MESHYARD_SINK_LINGER_MS": "0"}
    for start in range(20, 40, 4):
        before = sinks.log().count("partitions_assigned")
        process = sinks.start(clickhouse_database, **small)
        sinks.wait_assigned(before + 1)
        time.sleep(rng.random() * 0.3)
        process.kill()
        process.wait()
        write(sinks, transactions[start : start + 4], aborted_every=4)
    write(sinks, transactions[40:], aborted_every=7)
    process = sinks.start(clickhouse_database, **small)
    reports = sinks.wait_equal(clickhouse_database)
    assert sum(report.kafka_rows for report in reports) == sum(len(events) for events in transactions)
    expected = told_by_kafka(sinks)
    client = connect(clickhouse_database)
    assert_views_agree(client, expected)
    for table in ("job_events", "stage_attempts_state", "jobs_state", "event_counts_state"):
        client.execute(f"OPTIMIZE TABLE {table} FINAL")
    assert_views_agree(client, expected)
    client.disconnect()
    process.send_signal(signal.SIGTERM)
    assert process.wait(WAIT_SECONDS) == 0


class CrashError(BaseException):
    """Ends a sink where it stands."""


class CrashingStore(Store):
    """The store, in a process that dies at its third insert."""

    def __init__(self, url: str, when: str) -> None:
        super().__init__(url, None)
        self._when = when
        self._inserts = 0

    def insert(self, rows: Sequence[Row], intent: Intent, source: Source) -> None:
        self._inserts += 1
        if self._inserts == 3 and self._when == "before":
            raise CrashError
        super().insert(rows, intent, source)
        if self._inserts == 3 and self._when == "after":
            raise CrashError


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_block_cut_by_a_crash_is_formed_again(sinks: SinkProcesses, clickhouse_database: str, when: str) -> None:
    write(sinks, history(seed=11, jobs=20), aborted_every=5)
    settings = SinkSettings(
        clickhouse_url=clickhouse_database,
        topic=sinks.events,
        dead_topic=sinks.dead,
        group=sinks.group,
        linger_ms=0,
        block_rows=20,
    )
    with pytest.raises(CrashError):
        Sink(sinks.kafka, settings, CrashingStore(clickhouse_database, when), codec, SystemClock()).run()
    # Another block size: without the intent the next block would be cut elsewhere.
    sinks.start(clickhouse_database, MESHYARD_SINK_BLOCK_ROWS="33", MESHYARD_SINK_LINGER_MS="0")
    sinks.wait_equal(clickhouse_database)
    assert "intent_found" in sinks.log()
    client = connect(clickhouse_database)
    assert_views_agree(client, told_by_kafka(sinks))
    client.disconnect()


def letter_of(value: bytes) -> Record:
    """A dead letter, which may be larger than what the codec reads."""
    schema = fastavro.parse_schema(json.loads(bundled().latest("dead_letter").text))
    record: Any = fastavro.schemaless_reader(io.BytesIO(value[5:]), schema, None)
    return dict(record)


def test_poison_goes_to_the_dead_letters_and_blocks_nobody(sinks: SinkProcesses, clickhouse_database: str) -> None:
    events = [event for events in history(seed=5, jobs=5) for event in events]
    good = [(event["job_id"], codec.encode("job_event", event)) for event in events]
    too_wide = codec.encode("job_event", {**events[0], "attempt": 2**31})
    bad = [b"", b"no avro", good[0][1][:-3], good[0][1] + b"x", b"\x00\x7f\xff\xff\xff", too_wide, b"\x00" * 300_000]
    produce(sinks.kafka.bootstrap, sinks.events, [*good[:9], *(("poison", value) for value in bad), *good[9:]])
    sinks.start(clickhouse_database)
    reports = sinks.wait_equal(clickhouse_database)
    assert sum(report.poison for report in reports) == len(bad)
    assert sum(report.stored_rows for report in reports) == len(good)
    letters = [letter_of(message.value() or b"") for message in read_topic(sinks.kafka.bootstrap, sinks.dead)]
    assert sorted(letter["value"] for letter in letters) == sorted(bad)
    assert {letter["reason"] for letter in letters} == {
        "empty", "wrong_magic_byte", "truncated", "trailing_bytes", "unknown_schema_id", "invalid_field", "too_large"
    }  # fmt: skip
    assert {(letter["topic"], letter["role"], letter["key"]) for letter in letters} == {
        (sinks.events, "sink", b"poison")
    }


def test_two_sinks_share_and_hand_over(sinks: SinkProcesses, clickhouse_database: str) -> None:
    transactions = history(seed=23, jobs=60)
    small = {"MESHYARD_SINK_BLOCK_ROWS": "20", "MESHYARD_SINK_LINGER_MS": "0"}
    write(sinks, transactions[:20], aborted_every=9)
    first = sinks.start(clickhouse_database, **small)
    sinks.wait_assigned(1)
    sinks.start(clickhouse_database, MESHYARD_SINK_ID="sink-1", **small)
    write(sinks, transactions[20:40], aborted_every=9)
    sinks.wait_equal(clickhouse_database)
    first.kill()
    write(sinks, transactions[40:], aborted_every=9)
    sinks.wait_equal(clickhouse_database)  # once the killed member's session of 10 s has ended
    client = connect(clickhouse_database)
    assert_views_agree(client, told_by_kafka(sinks))
    client.disconnect()


@pytest.mark.skipif(bool(EXISTING_URL), reason="stops the server")
def test_without_clickhouse_it_waits(sinks: SinkProcesses, tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "data")
    address = {"MESHYARD_CLICKHOUSE_PORT": str(server.port), "MESHYARD_CLICKHOUSE_PASSWORD": server.password}
    server.stop()
    transactions = history(seed=2, jobs=20)
    write(sinks, transactions[:10], aborted_every=4)
    process = sinks.start(server.url, MESHYARD_SINK_LINGER_MS="0")
    wait_until(lambda: "sink_waits" in sinks.log(), sinks.log)
    assert server.password not in sinks.log()
    server = ServerProcess(tmp_path / "data", address)
    sinks.wait_equal(server.url)
    server.kill()
    write(sinks, transactions[10:], aborted_every=4)
    wait_until(lambda: "block_retried" in sinks.log(), sinks.log)
    server = ServerProcess(tmp_path / "data", address)
    sinks.wait_equal(server.url)
    process.send_signal(signal.SIGTERM)
    assert process.wait(WAIT_SECONDS) == 0
    server.stop()


def test_verify_sees_what_is_missing_and_what_is_double(sinks: SinkProcesses, clickhouse_database: str) -> None:
    write(sinks, history(seed=2, jobs=10), aborted_every=4)
    process = sinks.start(clickhouse_database)
    whole = sinks.wait_equal(clickhouse_database)
    process.kill()
    client = connect(clickhouse_database)
    partition = next(report.partition for report in whole if report.stored_rows)
    one = f"partition = {partition} AND offset = (SELECT min(offset) FROM job_events WHERE partition = {partition})"
    client.execute(f"INSERT INTO job_events SELECT * FROM job_events WHERE {one}")
    (double,) = (report for report in sinks.reports(clickhouse_database) if report.partition == partition)
    assert (double.is_equal, double.duplicates, double.missing) == (False, 1, 0)
    client.execute(f"DELETE FROM job_events WHERE {one}")
    (missing,) = (report for report in sinks.reports(clickhouse_database) if report.partition == partition)
    assert (missing.is_equal, missing.duplicates, missing.missing) == (False, 0, 1)
    client.disconnect()


def assert_named_queries_agree(analytics: Analytics, expected: Expected) -> None:
    """What jobs waited, who got what, what was tried again."""
    lanes = analytics.query("lane_times", {"hours": 60_000})
    queued = [job_id for job_id, times in expected.times.items() if "queued" in times]
    assert {(row["lane"], row["tier"]) for row in lanes} == {expected.orders[job_id][:2] for job_id in queued}
    assert sum(row["jobs"] for row in lanes) == len(queued)
    aborted = [job_id for job_id in queued if expected.jobs[job_id][0] == "aborted"]
    assert sum(row["aborted"] for row in lanes) == len(aborted)
    assert all(row["wait_p50"] <= row["wait_p90"] <= row["wait_p99"] for row in lanes if row["wait_p50"] is not None)
    shares = analytics.query("gpu_shares", {"minutes": 65_535})
    by_minute: dict[Any, float] = {}
    for row in shares:
        by_minute[row["minute"]] = by_minute.get(row["minute"], 0.0) + row["share"]
    assert all(total == pytest.approx(1.0) for total in by_minute.values())
    retries = analytics.query("retries", {"hours": 60_000})
    failed = [each for each in expected.attempts.values() if each[0] in ("stage_failed", "stage_lost")]
    assert sum(row["failures"] for row in retries) == len(failed)
    assert {row["error_class"] for row in retries} == {"transient", "lost"}
    assert {row["delay_p50"] for row in retries if row["error_class"] == "transient"} == {0.25}


def test_named_queries_tell_of_a_job(sinks: SinkProcesses, clickhouse_database: str) -> None:
    write(sinks, history(seed=2, jobs=30), aborted_every=4)
    sinks.start(clickhouse_database)
    sinks.wait_equal(clickhouse_database)
    expected = told_by_kafka(sinks)
    analytics = Analytics(clickhouse_database)
    for job_id, (state, seconds) in list(expected.jobs.items())[:10]:
        (job,) = analytics.query("job", {"job_id": job_id})
        assert (job["state"], job["seconds"]) == (state, seconds)
        stages = analytics.query("job_stages", {"job_id": job_id})
        attempts = {key: value for key, value in expected.attempts.items() if key[0] == job_id}
        assert [(row["stage"], row["attempt"]) for row in stages] == [(key[1], key[2]) for key in attempts]
        assert sum(row["cost_usd"] for row in stages) == pytest.approx(job["cost_usd"])
        assert all(
            row["cost_usd"] == pytest.approx(row["gpu_seconds"] * PRICES[row["resource_class"]]) for row in stages
        )
    users = analytics.query("users_cost", {"days": 60_000})
    assert sum(row["cost_usd"] for row in users) == pytest.approx(expected.cost_usd())
    assert analytics.query("stage_times", {"hours": 60_000})
    assert_named_queries_agree(analytics, expected)
    table = analytics.sql("SELECT count() AS jobs FROM jobs")
    assert (table.columns, table.rows) == (("jobs",), [(len(expected.jobs),)])
    for refused in (
        "DROP TABLE jobs",
        "INSERT INTO prices VALUES ('a', 'b', 0, 1)",
        "SELECT * FROM file('/etc/hostname')",
    ):
        with pytest.raises(QueryRefusedError):
            analytics.sql(refused)
    analytics.close()
