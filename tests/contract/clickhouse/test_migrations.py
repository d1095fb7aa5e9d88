"""Migrations on a real server: fresh schema = all of them; changed or unknown ones are refused."""

import re
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from clickhouse_driver import Client

from analytics.client import connect, named_queries
from analytics.migrate import MigrationError, migrate, migrations, read_prices, store_prices

DOCUMENTATION = Path(__file__).parents[3] / "docs" / "analytics.md"
SCHEMA = """
SELECT name, engine, replaceAll(create_table_query, currentDatabase(), 'db') FROM system.tables
WHERE database = currentDatabase() AND name NOT LIKE '.inner%' ORDER BY name
"""


def test_one_by_one_and_at_once_give_the_same_schema(client: Client, clickhouse_url: str) -> None:
    every = migrations()
    assert [each.version for each in migrate(client)] == [each.version for each in every]
    at_once = client.execute(SCHEMA)
    assert migrate(client) == []
    name = "test_step_by_step"
    client.execute(f"DROP DATABASE IF EXISTS {name}")
    client.execute(f"CREATE DATABASE {name}")
    client.execute(f"USE {name}")
    for number in range(1, len(every) + 1):
        assert [each.version for each in migrate(client, every[:number])] == [number]
    assert client.execute(SCHEMA) == at_once
    client.execute(f"DROP DATABASE {name}")


def test_every_target_of_a_view_has_a_window(client: Client) -> None:
    migrate(client)
    targets = client.execute(
        "SELECT name, create_table_query FROM system.tables WHERE database = currentDatabase() "
        "AND (name LIKE '%_state' OR name = 'job_events')"
    )
    feeds = client.execute(
        "SELECT count() FROM system.tables WHERE database = currentDatabase() AND engine = 'MaterializedView'"
    )
    assert len(targets) == feeds[0][0] + 1
    assert all("non_replicated_deduplication_window = 10000" in query for _, query in targets)


def test_a_migration_that_died_half_way_is_done_again(client: Client) -> None:
    first, second, *_ = migrations()
    for statement in (*first.statements, second.statements[0]):
        client.execute(statement)
    assert len(migrate(client)) == len(migrations())


def test_two_at_once(clickhouse_database: str) -> None:
    failures: list[BaseException] = []

    def run() -> None:
        own = connect(clickhouse_database)
        try:
            migrate(own)
        except BaseException as error:
            failures.append(error)
        finally:
            own.disconnect()

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert failures == []


def test_changed_and_unknown_migrations_are_refused(client: Client) -> None:
    every = migrations()
    migrate(client)
    changed = [*every[:-1], replace(every[-1], sql="SELECT 1;")]
    with pytest.raises(MigrationError, match="changed"):
        migrate(client, changed)
    with pytest.raises(MigrationError, match="older"):
        migrate(client, every[:-1])


def test_rows_from_before_lanes_are_counted_with_those_after(client: Client) -> None:
    every = migrations()
    migrate(client, every[:5])
    columns = "INSERT INTO job_events (topic, partition, offset, event_id, job_id, user_id, transition, stage, attempt"
    old = [
        ("t", 0, 0, "0", "old", "u", "queued", "", 0), ("t", 0, 1, "1", "old", "u", "started", "generate", 1),
        ("t", 0, 2, "2", "refused", "u", "rejected", "", 0),
    ]  # fmt: skip
    client.execute(f"{columns}) VALUES", old)
    migrate(client)
    new = [
        ("t", 0, 3, "3", "old", "u", "stage_succeeded", "generate", 1, "batch", "pro", ["smaller"], 2.0),
        ("t", 0, 4, "4", "old", "u", "aborted", "", 0, "batch", "pro", ["smaller"], None),
        ("t", 0, 5, "5", "new", "v", "held", "", 0, "standard", "free", [], None),
        ("t", 0, 6, "6", "gone", "v", "held", "", 0, "standard", "free", [], None),
        ("t", 0, 7, "7", "gone", "v", "rejected", "", 1, "standard", "free", [], None),
    ]
    client.execute(f"{columns}, lane, tier, adjustments, gpu_seconds) VALUES", new)
    jobs = client.execute("SELECT job_id, state, lane, tier, adjustments FROM jobs ORDER BY job_id")
    assert jobs == [
        ("gone", "rejected", "standard", "free", []),
        ("new", "held", "standard", "free", []),
        ("old", "aborted", "batch", "pro", ["smaller"]),
        ("refused", "rejected", "", "", []),
    ]
    assert client.execute("SELECT user_id, lane, tier, outcome FROM stage_attempts") == [
        ("u", "batch", "pro", "stage_succeeded")
    ]
    assert client.execute("SELECT lane, user_id, gpu_seconds FROM gpu_minutes") == [("batch", "u", 2.0)]


@pytest.mark.parametrize(("names", "problem"), [(["0002_a.sql"], "expected 1"), (["first.sql"], "NNNN_name")])
def test_badly_numbered_files_are_refused(tmp_path: Path, names: list[str], problem: str) -> None:
    for name in names:
        (tmp_path / name).write_text("SELECT 1;\n")
    with pytest.raises(MigrationError, match=problem):
        migrations(tmp_path)


def test_prices_hold_from_their_time_on(client: Client, tmp_path: Path) -> None:
    migrate(client)
    file = tmp_path / "prices.toml"
    entry = '[[price]]\npool = "{}"\nresource_class = "gpu"\nvalid_from = {}\nusd_per_gpu_second = {}\n'
    file.write_text(
        entry.format("*", "2026-01-01T00:00:00Z", 1.0)
        + entry.format("*", "2026-02-01T00:00:00Z", 2.0)
        + entry.format("spot", "2026-01-15T00:00:00Z", 0.5)
    )
    store_prices(client, read_prices(file))
    store_prices(client, read_prices(file))
    events = []
    for number, (pool, day) in enumerate([("a", (1, 10)), ("a", (2, 10)), ("spot", (1, 10)), ("spot", (1, 20))]):
        at = datetime(2026, *day, tzinfo=UTC)
        events.append(
            ("t", 0, number, str(number), f"job-{number}", "stage_succeeded", "generate", 1, at, pool, "gpu", 10.0)
        )
    client.execute(
        "INSERT INTO job_events (topic, partition, offset, event_id, job_id, transition, stage, attempt, at, pool, "
        "resource_class, gpu_seconds) VALUES",
        events,
    )
    costs = client.execute("SELECT cost_usd FROM stage_costs ORDER BY job_id")
    assert costs == [(10.0,), (20.0,), (10.0,), (5.0,)]


@pytest.mark.parametrize(
    "text",
    [
        '[[price]]\npool = "*"',
        '[[price]]\npool = "*"\nresource_class = "gpu"\nvalid_from = "now"\nusd_per_gpu_second = 1',
        '[[price]]\npool = "*"\nresource_class = "gpu"\nvalid_from = 2026-01-01T00:00:00Z\nusd_per_gpu_second = -1',
    ],
)
def test_bad_prices_are_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "prices.toml"
    file.write_text(text)
    with pytest.raises(ValueError, match="price 1"):
        read_prices(file)


def test_every_named_query_runs_on_an_empty_schema(client: Client) -> None:
    migrate(client)
    for query in named_queries().values():
        assert client.execute(query.sql, {"job_id": "none", "days": 1, "hours": 1, "minutes": 1}) == []
        assert query.purpose


def test_every_question_of_the_documentation_is_answered(client: Client) -> None:
    migrate(client)
    page = DOCUMENTATION.read_text()
    questions = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    assert len(questions) == 4
    for question in questions:
        assert client.execute(question) == []
    assert all(f"`{name}`" in page for name in named_queries())
    views = client.execute("SELECT name FROM system.tables WHERE database = currentDatabase() AND engine = 'View'")
    assert all(f"| `{name}` |" in page for (name,) in views)
