"""How statements are read: kinds, INSERT targets, FORMAT, limits. What is refused stands in the contract suite."""

import pytest

from analytics.local.errors import Code, EngineError
from analytics.local.guard import MAX_SELECT_BYTES, Guard, Kind

guard = Guard(frozenset({"file", "url", "numbers", "brandNewFunction"}))


@pytest.mark.parametrize(
    ("query", "kind"),
    [
        ("SELECT 1", Kind.SELECT),
        ("  /* c */ (SELECT 1) UNION ALL (SELECT 2);", Kind.SELECT),
        ("WITH 1 AS x SELECT x", Kind.SELECT),
        ("FROM numbers(1) SELECT *", Kind.SELECT),
        ("SHOW TABLES", Kind.ROWS),
        ("explain select 1", Kind.ROWS),
        ("INSERT INTO t VALUES", Kind.INSERT_DATA),
        ("INSERT INTO t (a) FORMAT Native", Kind.INSERT_DATA),
        ("INSERT INTO t VALUES (1)", Kind.COMMAND),
        ("INSERT INTO t FORMAT JSONEachRow {}", Kind.COMMAND),
        ("INSERT INTO t SELECT 1", Kind.COMMAND),
        ("INSERT INTO t WITH 1 AS x SELECT x", Kind.COMMAND),
        ("WITH 1 AS x INSERT INTO t SELECT x", Kind.COMMAND),
        ("CREATE TABLE t (a UInt8) ENGINE = Memory", Kind.COMMAND),
        ("SET a = 1", Kind.COMMAND),
    ],
)
def test_kinds(query: str, kind: Kind) -> None:
    assert guard.examine(query).kind is kind


@pytest.mark.parametrize(
    ("query", "prefix", "table", "columns"),
    [
        ("INSERT INTO t VALUES", "INSERT INTO t ", "t", None),
        ("INSERT INTO TABLE db.t (a, `b c`) VALUES", "INSERT INTO TABLE db.t (a, `b c`) ", "db.t", ("a", "b c")),
        ('insert into `d``b`."t" (n.x) values', 'insert into `d``b`."t" (n.x) ', '`d``b`."t"', ("n.x",)),
        ("INSERT INTO t (a) SETTINGS async_insert=0 VALUES", "INSERT INTO t (a) SETTINGS async_insert=0 ", "t", ("a",)),
        ("INSERT INTO t", "INSERT INTO t", "t", None),
    ],
)
def test_targets_of_inserts(query: str, prefix: str, table: str, columns: tuple[str, ...] | None) -> None:
    insert = guard.examine(query).insert
    assert insert is not None
    assert (insert.prefix, insert.table, insert.columns) == (prefix, table, columns)


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("SELECT 1 FORMAT CSV", "SELECT 1 "),
        ("SELECT 1 FORMAT CSV SETTINGS a = 1", "SELECT 1  SETTINGS a = 1"),
        ("SELECT format('{}', 1) AS format", "SELECT format('{}', 1) AS format"),
        ("SELECT format FROM t", "SELECT format FROM t"),
        ("SELECT * FROM format(CSV, '1')", "SELECT * FROM format(CSV, '1')"),
    ],
)
def test_format_is_taken_off(query: str, text: str) -> None:
    assert guard.examine(query).text == text


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("", Code.SYNTAX_ERROR),
        ("  ;; -- nothing", Code.SYNTAX_ERROR),
        ("SELECT 1; DROP TABLE t", Code.SYNTAX_ERROR),
        ("SELECT '" + "x" * MAX_SELECT_BYTES + "'", Code.SYNTAX_ERROR),
        ("SELECT * FROM brandNewFunction(1)", Code.ACCESS_DENIED),
        ("SELECT * FROM `brand\\NewFunction`(1)", Code.ACCESS_DENIED),
    ],
)
def test_refusals(query: str, code: Code) -> None:
    with pytest.raises(EngineError) as caught:
        guard.examine(query)
    assert caught.value.code == code
