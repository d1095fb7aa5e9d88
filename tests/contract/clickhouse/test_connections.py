"""Handshake, hang-ups and bytes that are no ClickHouse protocol."""

import socket
import threading
import uuid
from urllib.parse import urlsplit, urlunsplit

import pytest
from clickhouse_driver import Client
from clickhouse_driver.errors import Error, ServerException

from analytics.client import connect
from tests.contract.clickhouse.conftest import embedded_only
from tests.support.clickhouse import with_database

RUNNING = "SELECT count() FROM system.processes WHERE query LIKE '%{0} FROM%' AND query NOT LIKE '%processes%'"


def test_ping(client: Client) -> None:
    client.execute("SELECT 1")
    assert client.connection.ping()


def test_a_wrong_password(clickhouse_url: str) -> None:
    parts = urlsplit(clickhouse_url)
    wrong = urlunsplit(parts._replace(netloc=f"{parts.username}:wrong@{parts.hostname}:{parts.port}"))
    with pytest.raises(ServerException) as caught:
        connect(wrong).execute("SELECT 1")
    assert caught.value.code == 516  # AUTHENTICATION_FAILED


def test_an_unknown_user(clickhouse_url: str) -> None:
    parts = urlsplit(clickhouse_url)
    wrong = urlunsplit(parts._replace(netloc=f"nobody:{parts.password}@{parts.hostname}:{parts.port}"))
    with pytest.raises(ServerException) as caught:
        connect(wrong).execute("SELECT 1")
    assert caught.value.code == 516


def test_an_unknown_database(clickhouse_url: str) -> None:
    with pytest.raises(ServerException) as caught:
        connect(with_database(clickhouse_url, "no_such_database")).execute("SELECT 1")
    assert caught.value.code == 81  # UNKNOWN_DATABASE


def test_many_connections_insert_at_once(clickhouse_database: str) -> None:
    setup = connect(clickhouse_database)
    setup.execute("CREATE TABLE t (worker UInt8, n UInt32) ENGINE = MergeTree ORDER BY (worker, n)")
    failures: list[BaseException] = []

    def insert(worker: int) -> None:
        client = connect(clickhouse_database)
        try:
            for start in range(0, 500, 100):
                client.execute("INSERT INTO t VALUES", [(worker, start + n) for n in range(100)])
        except BaseException as error:
            failures.append(error)
        finally:
            client.disconnect()

    threads = [threading.Thread(target=insert, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert failures == []
    assert setup.execute("SELECT count(), uniqExact(worker, n) FROM t") == [(4000, 4000)]
    setup.disconnect()


def test_a_client_that_hangs_up_stops_its_query(clickhouse_database: str) -> None:
    marker = f"hang_up_{uuid.uuid4().hex}"
    watching, leaving = connect(clickhouse_database), connect(clickhouse_database)
    leaving.execute("SELECT 1")
    leaving.connection.send_query(f"SELECT count() AS {marker} FROM numbers(1000000000000)")
    leaving.connection.send_external_tables([])
    while watching.execute(RUNNING.format(marker)) != [(1,)]:
        pass
    leaving.disconnect()
    while watching.execute(RUNNING.format(marker)) != [(0,)]:
        pass  # the suite's time limit is the assertion
    watching.disconnect()


def test_cancel_ends_a_query_that_has_sent_nothing_yet(clickhouse_database: str) -> None:
    marker = f"cancel_{uuid.uuid4().hex}"
    watching, client = connect(clickhouse_database), connect(clickhouse_database)
    client.execute("SELECT 1")
    client.connection.send_query(f"SELECT count() AS {marker} FROM numbers(1000000000000)")
    client.connection.send_external_tables([])
    while watching.execute(RUNNING.format(marker)) != [(1,)]:
        pass
    sock = client.connection.socket
    client.cancel()
    assert client.connection.ping()
    assert client.connection.socket is sock
    client.disconnect()
    watching.disconnect()


def test_a_client_that_leaves_in_mid_insert_inserts_nothing(client: Client, clickhouse_database: str) -> None:
    client.execute("CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a")
    leaving = connect(clickhouse_database)
    leaving.execute("SELECT 1")
    leaving.connection.send_query("INSERT INTO t VALUES")
    leaving.connection.send_external_tables([])
    leaving.receive_sample_block()
    leaving.disconnect()
    assert client.execute("SELECT count() FROM t") == [(0,)]
    client.execute("INSERT INTO t VALUES", [(1,)])
    assert client.execute("SELECT count() FROM t") == [(1,)]


@embedded_only
@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x00" + b"\xff" * 64,
        b"\x00\xff\xff\xff\xff\x7f",  # a client name of 32 GB
        b"\x05",
        b"",
    ],
)
def test_bytes_that_are_no_handshake(clickhouse_url: str, garbage: bytes) -> None:
    parts = urlsplit(clickhouse_url)
    with socket.create_connection((parts.hostname, parts.port), timeout=20) as sock:
        sock.sendall(garbage)
        sock.shutdown(socket.SHUT_WR)
        answer = sock.recv(4096)
    assert answer == b"" or answer[0] == 2  # an exception packet
    client = connect(clickhouse_url)
    assert client.execute("SELECT 1") == [(1,)]
    client.disconnect()


@embedded_only
def test_a_block_that_lies_ends_its_connection_only(client: Client, clickhouse_database: str) -> None:
    client.execute("CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a")
    liar = connect(clickhouse_database)
    liar.execute("SELECT 1")
    liar.connection.send_query("INSERT INTO t VALUES")
    liar.connection.send_external_tables([])
    liar.receive_sample_block()
    info = b"\x01\x00\x02\xff\xff\xff\xff\x00"
    liar.connection.fout.write(b"\x02\x00" + info + b"\x01\x01\x01a" + b"\x0bNoSuchThing" + b"\x00")
    liar.connection.fout.flush()
    with pytest.raises((Error, EOFError)):
        liar.receive_end_of_insert_query()
    liar.disconnect()
    assert client.execute("SELECT count() FROM t") == [(0,)]
