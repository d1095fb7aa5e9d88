"""What a ClickHouse server answers to queries over the native protocol."""

import datetime
import threading
import uuid
from decimal import Decimal
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
from clickhouse_driver import Client
from clickhouse_driver.errors import ServerException

from analytics.client import connect
from tests.support.clickhouse import EXISTING_URL

VALUES: list[tuple[str, Any]] = [
    ("toUInt8(255)", 255),
    ("toInt64(-9223372036854775808)", -(2**63)),
    ("toUInt128('340282366920938463463374607431768211455')", 2**128 - 1),
    ("toInt256(-1)", -1),
    ("toFloat64(0.1)", 0.1),
    ("true", True),
    ("'it''s \\\\ ü \\n'", "it's \\ ü \n"),
    ("toFixedString('ab', 4)", "ab"),
    ("toDate('2026-01-02')", datetime.date(2026, 1, 2)),
    ("toDate32('1925-01-02')", datetime.date(1925, 1, 2)),
    ("toDateTime('2026-01-02 03:04:05', 'UTC')", datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)),
    (
        "toDateTime64('2026-01-02 03:04:05.678', 3, 'UTC')",
        datetime.datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=datetime.UTC),
    ),
    ("toDecimal64('-1.2345', 4)", Decimal("-1.2345")),
    ("toUUID('00000000-0000-0000-0000-00000000002a')", uuid.UUID(int=42)),
    ("toIPv4('127.0.0.1')", IPv4Address("127.0.0.1")),
    ("toIPv6('::1')", IPv6Address("::1")),
    ("CAST('b', 'Enum8(\\'a,(\\' = 1, \\'b\\' = 2)')", "b"),
    ("toNullable(7)", 7),
    ("CAST(NULL, 'Nullable(String)')", None),
    ("toLowCardinality('x')", "x"),
    ("CAST(NULL, 'LowCardinality(Nullable(String))')", None),
    ("[[1, 2], [], [3]]", [[1, 2], [], [3]]),
    ("emptyArrayString()", []),
    ("CAST([], 'Array(LowCardinality(String))')", []),
    ("CAST(['a', NULL], 'Array(LowCardinality(Nullable(String)))')", ["a", None]),
    ("map('a', [1, 2], 'b', [])", {"a": [1, 2], "b": []}),
    ("CAST(map('k', 'v'), 'Map(LowCardinality(String), LowCardinality(String))')", {"k": "v"}),
    ("tuple(1, 'a', [NULL, 2])", (1, "a", [None, 2])),
    ("toIntervalDay(3)", 3),
]


@pytest.mark.parametrize(("expression", "expected"), VALUES, ids=[each[0][:40] for each in VALUES])
def test_values_of_every_type_arrive(client: Client, expression: str, expected: Any) -> None:
    assert client.execute(f"SELECT {expression}, 1") == [(expected, 1)]
    client.execute(f"CREATE TABLE t ENGINE = Memory AS SELECT {expression} AS value")
    client.execute("INSERT INTO t (value) VALUES", [(expected,)])
    assert client.execute("SELECT value FROM t") == [(expected,), (expected,)]


def test_a_result_of_many_blocks(any_client: Client) -> None:
    rows = any_client.execute(
        "SELECT number, toString(number), toLowCardinality(toString(number % 3)) FROM numbers(200000) ORDER BY 1",
        settings={"max_block_size": 30_000},
    )
    assert rows == [(n, str(n), str(n % 3)) for n in range(200_000)]


def test_more_low_cardinality_keys_than_a_byte_counts(any_client: Client) -> None:
    rows = any_client.execute("SELECT toLowCardinality(toString(number)) FROM numbers(70000) ORDER BY number")
    assert rows == [(str(n),) for n in range(70_000)]


def test_columns_of_a_result_without_rows(any_client: Client) -> None:
    rows, columns = any_client.execute(
        "SELECT toLowCardinality('x') AS l, CAST((1, 'a'), 'Tuple(n UInt8, s String)') AS t WHERE 0",
        with_column_types=True,
    )
    assert rows == []
    assert columns == [("l", "LowCardinality(String)"), ("t", "Tuple(\n    n UInt8,\n    s String)")] or columns == [
        ("l", "LowCardinality(String)"),
        ("t", "Tuple(n UInt8, s String)"),
    ]


def test_columns_of_show_without_rows(client: Client) -> None:
    assert client.execute("SHOW TABLES", with_column_types=True) == ([], [("name", "String")])


def test_statements_without_result(client: Client) -> None:
    assert client.execute("CREATE TABLE t (a UInt8) ENGINE = Memory") == []
    assert client.execute("EXISTS TABLE t") == [(1,)]
    assert client.execute("DESCRIBE TABLE t")[0][:2] == ("a", "UInt8")
    assert client.execute("TRUNCATE TABLE t") == []


def test_format_belongs_to_the_client(client: Client) -> None:
    assert client.execute("SELECT 1 AS format FORMAT JSONEachRow") == [(1,)]
    assert client.execute("SELECT 2 FORMAT CSV SETTINGS max_threads = 1;") == [(2,)]


def test_columnar_results(any_client: Client) -> None:
    columns = any_client.execute("SELECT number, toString(number) FROM numbers(3)", columnar=True)
    assert [list(column) for column in columns] == [[0, 1, 2], ["0", "1", "2"]]


@pytest.mark.xfail(not EXISTING_URL, reason="chDB's Native output leaves totals out", strict=True)
def test_totals_follow_the_rows(client: Client) -> None:
    rows = client.execute("SELECT number % 2 AS k, count() FROM numbers(10) GROUP BY k WITH TOTALS ORDER BY k")
    assert rows == [(0, 5), (1, 5), (0, 10)]


def test_rows_are_streamed(any_client: Client) -> None:
    # More than the limit in memory: only a stream gets through, and its first rows come before its last are made.
    rows = any_client.execute_iter("SELECT number FROM numbers(1000000000)", settings={"max_block_size": 10_000})
    assert [next(rows) for _ in range(3)] == [(0,), (1,), (2,)]
    any_client.cancel()
    assert any_client.execute("SELECT 1") == [(1,)]


def test_bytes_that_are_no_text(clickhouse_database: str) -> None:
    client = Client.from_url(clickhouse_database)
    client.execute("CREATE TABLE raw (id UInt8, value String) ENGINE = MergeTree ORDER BY id")
    client.execute("INSERT INTO raw VALUES", [(1, b"\xff\x00\xfe")])
    binary = Client.from_url(clickhouse_database)
    assert binary.execute("SELECT value FROM raw", settings={"strings_as_bytes": True}) == [(b"\xff\x00\xfe",)]
    assert client.execute("SELECT hex(value) FROM raw") == [("FF00FE",)]
    client.disconnect()
    binary.disconnect()


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("UInt64", 2**64 - 1),
        ("String", "it's \\ \n\t\r ü \0 '); DROP TABLE t; --"),
        ("Array(String)", ["a'b", "", "\\"]),
        ("Date", datetime.date(2026, 1, 2)),
        ("UUID", uuid.UUID(int=7)),
    ],
)
def test_typed_parameters(client: Client, kind: str, value: Any) -> None:
    assert client.execute(f"SELECT {{value:{kind}}}", {"value": value}) == [(value,)]


def test_a_parameter_of_the_wrong_type(client: Client) -> None:
    with pytest.raises(ServerException) as caught:
        client.execute("SELECT {n:UInt8}", {"n": "no number"})
    assert caught.value.code == 457  # BAD_QUERY_PARAMETER
    with pytest.raises(ServerException) as caught:
        client.execute("SELECT {n:UInt8}", {"m": 1})
    assert caught.value.code == 456  # UNKNOWN_QUERY_PARAMETER


def test_client_side_parameters(clickhouse_database: str) -> None:
    client = Client.from_url(clickhouse_database)
    assert client.execute("SELECT %(a)s, %(b)s", {"a": "it's", "b": 3}) == [("it's", 3)]
    client.disconnect()


def test_settings_hold_for_their_query_only(client: Client) -> None:
    question = "SELECT getSetting('max_block_size')"
    before = client.execute(question)
    assert client.execute(question, settings={"max_block_size": 7}) == [(7,)]
    assert client.execute(question) == before


def test_set_holds_for_the_session_and_comes_back(client: Client) -> None:
    question = "SELECT getSetting('max_block_size')"
    client.execute("SET max_block_size = 9")
    assert client.execute(question) == [(9,)]
    assert client.execute(question, settings={"max_block_size": 7}) == [(7,)]
    assert client.execute(question) == [(9,)]


def test_an_unknown_setting(client: Client) -> None:
    with pytest.raises(ServerException) as caught:
        client.execute("SELECT 1 SETTINGS no_such_setting = 1")
    assert caught.value.code == 115  # UNKNOWN_SETTING
    assert client.execute("SELECT 1") == [(1,)]


def test_limits(client: Client) -> None:
    with pytest.raises(ServerException) as caught:
        client.execute("SELECT number FROM numbers(1000)", settings={"max_result_rows": 10, "max_block_size": 10})
    assert caught.value.code == 396  # TOO_MANY_ROWS_OR_BYTES
    with pytest.raises(ServerException) as caught:
        client.execute("SELECT count() FROM numbers(100000000000)", settings={"max_execution_time": 0.2})
    assert caught.value.code == 159  # TIMEOUT_EXCEEDED


def test_readonly_holds_for_its_query_only(client: Client) -> None:
    client.execute("CREATE TABLE t (a UInt8) ENGINE = Memory")
    for statement in ("INSERT INTO t VALUES (1)", "DROP TABLE t", "CREATE TABLE u (a UInt8) ENGINE = Memory"):
        with pytest.raises(ServerException) as caught:
            client.execute(statement, settings={"readonly": 1})
        assert caught.value.code == 164  # READONLY
    assert client.execute("SELECT count() FROM t", settings={"readonly": 1}) == [(0,)]
    client.execute("INSERT INTO t VALUES (1)")
    assert client.execute("SELECT count() FROM t") == [(1,)]


@pytest.mark.parametrize(
    ("query", "code", "part"),
    [
        ("SELEC 1", 62, "Syntax error"),
        ("SELECT nothing", 47, "UNKNOWN_IDENTIFIER"),
        ("SELECT 1 FROM no_such_table", 60, "UNKNOWN_TABLE"),
        ("SELECT no_such_function(1)", 46, "UNKNOWN_FUNCTION"),
        ("SELECT throwIf(1, 'as told')", 395, "as told"),
        ("SELECT throwIf(number = 150000) FROM numbers(200000)", 395, "throwIf"),
        ("DROP TABLE no_such_table", 60, "UNKNOWN_TABLE"),
        ("SELECT 1; SELECT 2", 62, "Multi-statements"),
        ("", 62, "Syntax error"),
    ],
)
def test_errors_carry_clickhouse_codes(client: Client, query: str, code: int, part: str) -> None:
    with pytest.raises(ServerException) as caught:
        client.execute(query)
    assert caught.value.code == code
    assert part in str(caught.value)
    assert client.execute("SELECT 1") == [(1,)]


def test_a_query_longer_than_allowed(client: Client) -> None:
    text = "SELECT " + " + ".join(["1"] * 100_000)
    with pytest.raises(ServerException) as caught:
        client.execute(text)
    assert caught.value.code == 62
    assert "Max query size exceeded" in str(caught.value)


def test_progress_and_profile(client: Client) -> None:
    client.execute("CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a")
    client.execute("INSERT INTO t SELECT number FROM numbers(1000)")
    progress = client.execute_with_progress("SELECT * FROM t LIMIT 10")
    assert progress.get_result() == [(n,) for n in range(10)]
    assert client.last_query is not None
    assert client.last_query.progress.rows >= 10
    assert client.last_query.profile_info.rows == 10


def test_the_current_database(client: Client, clickhouse_database: str) -> None:
    name = clickhouse_database.rsplit("/", 1)[1]
    assert client.execute("SELECT currentDatabase()") == [(name,)]
    client.execute("USE system")
    assert client.execute("SELECT currentDatabase()") == [("system",)]
    assert client.execute("SELECT currentDatabase()", settings={"readonly": 1}) == [("system",)]


def test_temporary_tables_belong_to_their_session(client: Client, clickhouse_database: str) -> None:
    client.execute("CREATE TEMPORARY TABLE mine (a UInt8)")
    client.execute("INSERT INTO mine VALUES", [(1,), (2,)])
    assert client.execute("SELECT sum(a) FROM mine") == [(3,)]
    other = connect(clickhouse_database)
    with pytest.raises(ServerException):
        other.execute("SELECT * FROM mine")
    other.disconnect()


def test_queries_of_two_connections_run_side_by_side(clickhouse_database: str) -> None:
    marker = f"side_by_side_{uuid.uuid4().hex}"
    slow, quick = connect(clickhouse_database), connect(clickhouse_database)
    outcome: list[int] = []

    def run() -> None:
        try:
            slow.execute(f"SELECT count() AS {marker} FROM numbers(1000000000000)")
        except ServerException as error:
            outcome.append(error.code)

    thread = threading.Thread(target=run)
    thread.start()
    running = (
        f"SELECT count() FROM system.processes WHERE query LIKE '%{marker} FROM%' AND query NOT LIKE '%processes%'"
    )
    while quick.execute(running) != [(1,)]:
        pass
    assert quick.execute("SELECT 1") == [(1,)]
    quick.execute(f"KILL QUERY WHERE query LIKE '%{marker} FROM%' AND query NOT LIKE 'KILL%' ASYNC")
    thread.join(timeout=30)
    assert outcome == [394]  # QUERY_WAS_CANCELLED
    slow.disconnect()
    quick.disconnect()
