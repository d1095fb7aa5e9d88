"""What a ClickHouse server does with blocks of rows: types, errors, deduplication."""

import datetime
import uuid
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from clickhouse_driver import Client
from clickhouse_driver.connection import Connection
from clickhouse_driver.errors import Error, ServerException

WIDE = """CREATE TABLE wide (
    id UInt64, text String, word LowCardinality(String), maybe LowCardinality(Nullable(String)),
    at DateTime64(3, 'UTC'), tags Array(LowCardinality(String)), params Map(String, UInt8),
    kind Enum8('x' = 1, 'y (' = 2), number Nullable(Float64), price Decimal(18, 4), key UUID,
    pair Tuple(a UInt8, `b c` String), twice UInt64 DEFAULT id * 2,
    stored UInt64 MATERIALIZED id + 1, alias UInt64 ALIAS id
) ENGINE = MergeTree ORDER BY id"""


def wide_row(n: int) -> tuple[Any, ...]:
    return (
        n, f"text {n} ü", f"word {n % 3}", None if n % 2 else "z",
        datetime.datetime(2026, 1, 1, 0, 0, n % 60, 5000, tzinfo=datetime.UTC), ["q", "r"][: n % 3],
        {"k": n % 250}, "y (" if n % 2 else "x", None if n % 2 else n / 4, Decimal("1.2345") * n, uuid.UUID(int=n),
        (n % 256, f"p{n}"),
    )  # fmt: skip


COLUMNS = "id, text, word, maybe, at, tags, params, kind, number, price, key, pair"


def test_rows_of_many_types_come_back(any_client: Client) -> None:
    any_client.execute(WIDE)
    rows = [wide_row(n) for n in range(1000)]
    assert any_client.execute(f"INSERT INTO wide ({COLUMNS}) VALUES", rows) == 1000
    assert any_client.execute(f"SELECT {COLUMNS} FROM wide ORDER BY id") == rows
    assert any_client.execute("SELECT twice, stored, alias FROM wide WHERE id = 21") == [(42, 22, 21)]


def test_an_insert_without_columns_takes_all_stored_ones(client: Client) -> None:
    client.execute(WIDE)
    client.execute("INSERT INTO wide VALUES", [(*wide_row(1), 99)])
    assert client.execute("SELECT twice, stored FROM wide") == [(99, 2)]


def test_columnar_inserts(any_client: Client) -> None:
    any_client.execute("CREATE TABLE t (a UInt64, s String) ENGINE = MergeTree ORDER BY a")
    assert any_client.execute("INSERT INTO t (a, s) VALUES", [[1, 2, 3], ["x", "y", "z"]], columnar=True) == 3
    assert any_client.execute("SELECT * FROM t ORDER BY a") == [(1, "x"), (2, "y"), (3, "z")]


def test_rows_as_dictionaries_and_from_a_generator(client: Client) -> None:
    client.execute("CREATE TABLE t (a UInt64, s String) ENGINE = MergeTree ORDER BY a")
    client.execute("INSERT INTO t (s, a) VALUES", [{"a": 1, "s": "x"}])

    def rows() -> Iterator[tuple[str, int]]:
        yield from ((str(n), n) for n in range(2, 5))

    client.execute("INSERT INTO t (s, a) VALUES", rows())
    assert client.execute("SELECT * FROM t ORDER BY a") == [(1, "x"), (2, "2"), (3, "3"), (4, "4")]


def test_an_insert_of_many_blocks(any_client: Client) -> None:
    any_client.execute("CREATE TABLE t (a UInt64, s LowCardinality(String)) ENGINE = MergeTree ORDER BY a")
    rows = [(n, str(n % 300)) for n in range(20_000)]
    any_client.execute("INSERT INTO t VALUES", rows, settings={"insert_block_size": 700})
    assert any_client.execute("SELECT * FROM t ORDER BY a") == rows


def test_no_rows(client: Client) -> None:
    client.execute("CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a")
    assert client.execute("INSERT INTO t VALUES", []) == 0
    assert client.execute("SELECT count() FROM t") == [(0,)]


def test_inserts_that_carry_their_rows(client: Client) -> None:
    client.execute("CREATE TABLE t (a UInt64, s String) ENGINE = MergeTree ORDER BY a")
    client.execute("INSERT INTO t VALUES (1, 'it''s'), (1 + 1, 'y')")
    client.execute("INSERT INTO t (a) SELECT number + 10 FROM numbers(2)")
    assert client.execute("SELECT * FROM t ORDER BY a") == [(1, "it's"), (2, "y"), (10, ""), (11, "")]


def test_names_that_need_quoting(client: Client) -> None:
    client.execute("CREATE TABLE `odd ``table` (`a b` UInt8, `c``d` UInt8) ENGINE = MergeTree ORDER BY tuple()")
    client.execute("INSERT INTO `odd ``table` (`c``d`, `a b`) VALUES", [(1, 2)])
    assert client.execute("SELECT `a b`, `c``d` FROM `odd ``table`") == [(2, 1)]


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        ("INSERT INTO no_such_table VALUES", 60),
        ("INSERT INTO t (a, no_such_column) VALUES", 16),
        ("INSERT INTO t (stored) VALUES", 44),
        ("INSERT INTO t VALUES (1, 2, 3)", 62),
    ],
)
def test_inserts_that_cannot_be(client: Client, statement: str, code: int) -> None:
    client.execute("CREATE TABLE t (a UInt8, stored UInt8 MATERIALIZED 1) ENGINE = MergeTree ORDER BY a")
    with pytest.raises(ServerException) as caught:
        client.execute(statement, [(1, 2)] if statement.endswith("VALUES") else None)
    assert caught.value.code == code
    assert client.execute("SELECT count() FROM t") == [(0,)]


def test_values_that_the_client_refuses(client: Client) -> None:
    client.execute("CREATE TABLE t (a UInt8) ENGINE = MergeTree ORDER BY a")
    with pytest.raises(Error):
        client.execute("INSERT INTO t VALUES", [("no number",)], types_check=True)
    assert client.execute("SELECT count() FROM t") == [(0,)]


def test_a_violated_constraint_inserts_nothing(client: Client) -> None:
    client.execute("CREATE TABLE t (a UInt64, CONSTRAINT small CHECK a < 10) ENGINE = MergeTree ORDER BY a")
    with pytest.raises(ServerException) as caught:
        client.execute("INSERT INTO t VALUES", [(n,) for n in range(20)])
    assert caught.value.code == 469  # VIOLATED_CONSTRAINT
    assert client.execute("SELECT count() FROM t") == [(0,)]


def test_a_failed_insert_leaves_the_connection_usable(client: Client) -> None:
    client.execute("CREATE TABLE t (a UInt64, CONSTRAINT small CHECK a < 10) ENGINE = MergeTree ORDER BY a")
    connection: Connection = client.connection
    sock = connection.socket
    with pytest.raises(ServerException):
        client.process_insert_query(
            "INSERT INTO t VALUES", [(n,) for n in range(20)]
        )  # below what disconnects on errors
    assert connection.socket is sock
    client.process_insert_query("INSERT INTO t VALUES", [(1,)])
    assert connection.ping()
    client.disconnect()
    assert client.execute("SELECT count() FROM t") == [(1,)]


class TestDeduplication:
    """Blocks with a token, as the sink writes them: table, summing view, aggregating view, view of rows."""

    WINDOW = "SETTINGS non_replicated_deduplication_window = 100"

    @pytest.fixture(autouse=True)
    def tables(self, client: Client) -> None:
        client.execute(f"CREATE TABLE source (a UInt64, s String) ENGINE = MergeTree ORDER BY a {self.WINDOW}")
        client.execute(f"CREATE TABLE sums (k UInt64, n UInt64) ENGINE = SummingMergeTree ORDER BY k {self.WINDOW}")
        client.execute(
            "CREATE TABLE states (k UInt64, n AggregateFunction(count), u AggregateFunction(uniqExact, String)) "
            f"ENGINE = AggregatingMergeTree ORDER BY k {self.WINDOW}"
        )
        client.execute(f"CREATE TABLE copies (a UInt64) ENGINE = MergeTree ORDER BY a {self.WINDOW}")
        client.execute(
            "CREATE MATERIALIZED VIEW to_sums TO sums AS SELECT a % 3 AS k, count() AS n FROM source GROUP BY k"
        )
        client.execute(
            "CREATE MATERIALIZED VIEW to_states TO states AS "
            "SELECT a % 3 AS k, countState() AS n, uniqExactState(s) AS u FROM source GROUP BY k"
        )
        client.execute("CREATE MATERIALIZED VIEW to_copies TO copies AS SELECT a FROM source")

    def counts(self, client: Client) -> tuple[int, ...]:
        """Rows in the table, the summing view, the aggregating view (count, distinct) and the view of rows."""
        (row,) = client.execute(
            "SELECT (SELECT count() FROM source), (SELECT sum(n) FROM sums), (SELECT countMerge(n) FROM states), "
            "(SELECT uniqExactMerge(u) FROM states), (SELECT count() FROM copies)"
        )
        return tuple(row)

    def insert(self, client: Client, token: str, rows: list[tuple[int, str]], **settings: object) -> None:
        client.execute(
            "INSERT INTO source (a, s) VALUES", rows, settings={"insert_deduplication_token": token, **settings}
        )

    ROWS: tuple[tuple[int, str], ...] = tuple((n, f"s{n}") for n in range(1000))

    def test_a_repeat_changes_nothing(self, any_client: Client) -> None:
        for _ in range(3):
            self.insert(any_client, "block 1", list(self.ROWS))
        assert self.counts(any_client) == (1000,) * 5

    def test_another_token_is_another_block(self, client: Client) -> None:
        self.insert(client, "block 1", list(self.ROWS))
        self.insert(client, "block 2", list(self.ROWS))
        assert self.counts(client) == (2000, 2000, 2000, 1000, 2000)

    def test_a_repeat_of_an_insert_that_was_split(self, client: Client) -> None:
        for _ in range(2):
            self.insert(client, "block 1", list(self.ROWS), insert_block_size=100, min_insert_block_size_rows=100)
        assert self.counts(client) == (1000,) * 5

    def test_a_repeat_after_a_merge(self, client: Client) -> None:
        self.insert(client, "block 1", list(self.ROWS[:500]))
        self.insert(client, "block 2", list(self.ROWS[500:]))
        for table in ("source", "sums", "states", "copies"):
            client.execute(f"OPTIMIZE TABLE {table} FINAL")
        self.insert(client, "block 1", list(self.ROWS[:500]))
        assert self.counts(client) == (1000,) * 5

    def test_a_view_that_failed_is_healed_by_the_repeat(self, client: Client) -> None:
        client.execute(
            "CREATE MATERIALIZED VIEW broken ENGINE = MergeTree ORDER BY x AS SELECT throwIf(a = 5) AS x FROM source"
        )
        with pytest.raises(ServerException) as caught:
            self.insert(client, "block 1", list(self.ROWS))
        assert caught.value.code == 395
        client.execute("DROP TABLE broken")
        self.insert(client, "block 1", list(self.ROWS))
        assert self.counts(client) == (1000,) * 5

    def test_a_repeat_by_another_connection(self, client: Client, any_client: Client) -> None:
        self.insert(client, "block 1", list(self.ROWS))
        self.insert(any_client, "block 1", list(self.ROWS))
        assert self.counts(client) == (1000,) * 5
