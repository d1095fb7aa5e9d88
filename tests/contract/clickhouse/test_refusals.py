"""The embedded engine can read the machine's files and reach its network; its server lets no client do so."""

from pathlib import Path

import pytest
from clickhouse_driver import Client
from clickhouse_driver.errors import ServerException

from tests.contract.clickhouse.conftest import embedded_only

pytestmark = embedded_only

ACCESS_DENIED = 497
REFUSED = [
    "SELECT * FROM file('/etc/hostname', LineAsString)",
    "SELECT file('/etc/hostname')",
    "SELECT FILE ('/etc/hostname')",
    "SELECT `file`('/etc/hostname')",
    "SELECT \"file\"('/etc/hostname')",
    "SELECT/**/file/**/('/etc/hostname')",
    "SELECT 'a\\'', file('/etc/hostname')",
    "SELECT 1 AS a$x$, file('/etc/hostname') AS b$x$",
    "WITH (SELECT file('/etc/hostname')) AS x SELECT x",
    "SELECT * FROM (SELECT * FROM url('http://127.0.0.1:1/', LineAsString))",
    "SELECT * FROM s3('http://127.0.0.1:1/a', LineAsString)",
    "SELECT * FROM remote('127.0.0.1:1', system.one)",
    "SELECT * FROM executable('x', TSV, 'a String')",
    "SELECT * FROM python('x')",
    "SELECT * FROM sqlite('/tmp/x', 't')",
    "SELECT * FROM mysql('127.0.0.1:1', 'a', 'b', 'c', 'd')",
    "SELECT 1 INTO OUTFILE '{path}'",
    "SELECT 1 INTO /* hidden */ OUTFILE '{path}' FORMAT CSV",
    "EXPLAIN SELECT 1 INTO OUTFILE '{path}'",
    "SHOW TABLES INTO OUTFILE '{path}'",
    "DESCRIBE TABLE file('/etc/hostname', LineAsString)",
    "INSERT INTO FUNCTION file('{path}', CSV, 'a UInt8') VALUES (1)",
    "INSERT INTO TABLE FUNCTION file('{path}', CSV, 'a UInt8') SELECT 1",
    "INSERT INTO t FROM INFILE '/etc/hostname' FORMAT LineAsString",
    "INSERT INTO t SELECT * FROM file('/etc/hostname', LineAsString)",
    "INSERT INTO t VALUES (file('/etc/hostname'))",
    "CREATE TABLE f (a String) ENGINE = File(CSV, '{path}')",
    "CREATE TABLE f (a String) ENGINE File(CSV)",
    "CREATE TABLE f (a String) ENGINE = `URL`('http://127.0.0.1:1/', CSV)",
    "CREATE TABLE f (a UInt8) ENGINE = MergeTree ORDER BY a SETTINGS disk = disk(type = local, path = '{path}')",
    "CREATE TABLE f AS url('http://127.0.0.1:1/', CSV)",
    "CREATE VIEW v AS SELECT file('/etc/hostname')",
    "CREATE DATABASE fs ENGINE = Filesystem('/')",
    "CREATE DICTIONARY d (a UInt64) PRIMARY KEY a SOURCE(FILE(path '/etc/hostname' format 'CSV')) LAYOUT(FLAT())",
    "CREATE USER u",
    "CREATE NAMED COLLECTION c AS a = 1",
    "ATTACH TABLE a FROM '/tmp' (a UInt8) ENGINE = MergeTree ORDER BY a",
    "BACKUP TABLE t TO File('{path}')",
    "RESTORE TABLE t FROM File('{path}')",
    "SYSTEM SHUTDOWN",
    "DROP DATABASE default",
    "DETACH DATABASE IF EXISTS `default` SYNC",
    "RENAME DATABASE default TO other",
    "GRANT ALL ON *.* TO default",
    "SELECT 1 SETTINGS format_schema = '/etc/hostname'",
    "SET format_schema = '/etc/hostname'",
]


@pytest.mark.parametrize("query", REFUSED)
def test_files_network_and_programs_are_refused(client: Client, tmp_path: Path, query: str) -> None:
    client.execute("CREATE TABLE t (a String) ENGINE = Memory")
    target = tmp_path / "written"
    with pytest.raises(ServerException) as caught:
        client.execute(query.replace("{path}", str(target)))
    assert caught.value.code == ACCESS_DENIED
    assert not target.exists()
    assert client.execute("SELECT count() FROM t") == [(0,)]


@pytest.mark.parametrize(
    "query", ["SELECT * FROM `{path}`", "SELECT * FROM default.`{path}`", "DESCRIBE TABLE `{path}`"]
)
def test_a_file_is_no_table(client: Client, tmp_path: Path, query: str) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("a,b\n")
    client.execute("USE default")
    with pytest.raises(ServerException) as caught:
        client.execute(
            query.replace("{path}", str(secret)).replace("{{", "{").replace("}}", "}"), {"table": str(secret)}
        )
    assert caught.value.code == 60  # UNKNOWN_TABLE


@pytest.mark.parametrize(
    "query",
    [
        "SELECT 'file(' AS a, 1 AS file",
        "SELECT 1 -- file('/etc/hostname')",
        "SELECT 'INTO OUTFILE'",
        "SELECT sum(number) FROM numbers(3)",
        "SELECT * FROM values('a UInt8', 1)",
        "SELECT name FROM system.tables WHERE engine = 'File' LIMIT 1",
        "SELECT * FROM view(SELECT 1)",
    ],
)
def test_what_only_looks_alike_works(client: Client, query: str) -> None:
    client.execute(query)


def test_readonly_refuses_to_reach_files_too(client: Client) -> None:
    with pytest.raises(ServerException) as caught:
        client.execute("SELECT * FROM file('/etc/hostname', LineAsString)", settings={"readonly": 1})
    assert caught.value.code == ACCESS_DENIED
