"""The embedded server as a process: its lock, its data, its end."""

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from clickhouse_driver.errors import Error

from analytics.client import connect
from tests.contract.clickhouse.conftest import embedded_only
from tests.support.clickhouse import ServerProcess

pytestmark = embedded_only


def start_another(data_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "analytics.local", "--data-dir", str(data_dir), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_data_and_dedup_windows_survive_stop_and_kill(tmp_path: Path) -> None:
    token = {"insert_deduplication_token": "block 1"}
    for end in ("start", "stop", "kill"):
        server = ServerProcess(tmp_path / "data")
        client = connect(server.url)
        if end == "start":
            client.execute(
                "CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a "
                "SETTINGS non_replicated_deduplication_window = 100"
            )
            client.execute("CREATE MATERIALIZED VIEW v ENGINE = MergeTree ORDER BY n AS SELECT count() AS n FROM t")
        client.execute("INSERT INTO t VALUES", [(n,) for n in range(100)], settings=token)
        assert client.execute(
            "SELECT count(), engine FROM t, system.databases WHERE name = 'default' GROUP BY engine"
        ) == [(100, "Atomic")]
        client.disconnect()
        if end == "kill":
            server.kill()
        else:
            assert server.stop() == 0


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_an_empty_server_starts_again(tmp_path: Path, end: str) -> None:
    for _ in range(3):
        server = ServerProcess(tmp_path / "data")
        client = connect(server.url)
        assert client.execute("SELECT name, engine FROM system.databases WHERE engine != 'Memory'") == [
            ("default", "Atomic")
        ]
        client.execute("CREATE TABLE gone (a UInt8) ENGINE = MergeTree ORDER BY a")
        client.execute("DROP TABLE gone")
        client.disconnect()
        if end == "stop":
            assert server.stop() == 0
        else:
            server.kill()


def test_kill_in_mid_insert_keeps_what_was_acknowledged(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "data")
    client = connect(server.url)
    client.execute("CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a")
    acknowledged = 0
    killer = threading.Timer(0.7, server.process.kill)
    killer.start()
    try:
        while True:
            client.execute("INSERT INTO t VALUES", [(n,) for n in range(1000)])
            acknowledged += 1
    except (Error, EOFError, OSError):
        client.disconnect()
    killer.join()
    server.kill()
    server = ServerProcess(tmp_path / "data")
    client = connect(server.url)
    ((rows,),) = client.execute("SELECT count() FROM t")
    client.disconnect()
    assert rows in (acknowledged * 1000, (acknowledged + 1) * 1000)
    assert list((tmp_path / "data" / "spool").iterdir()) == []
    server.stop()


def test_a_second_server_is_told_who_holds_the_directory(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "data")
    refused = start_another(tmp_path / "data")
    assert refused.returncode == 3
    assert f"in use by process {server.process.pid}" in refused.stderr
    assert refused.stderr.count("\n") == 1
    server.stop()


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = start_another(tmp_path / "data", "--port", str(port))
    assert refused.returncode == 4
    assert str(port) in refused.stderr


@pytest.mark.parametrize("port", ["http", "-1", "70000"])
def test_bad_settings_end_with_one_line(tmp_path: Path, port: str) -> None:
    refused = start_another(tmp_path / "data", f"--port={port}")
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: MESHYARD_CLICKHOUSE_PORT")
    assert refused.stderr.count("\n") == 1


def test_a_signal_ends_running_queries(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "data")
    client = connect(server.url)
    client.execute("SELECT 1")
    client.connection.send_query("SELECT count() FROM numbers(1000000000000)")
    client.connection.send_external_tables([])
    os.kill(server.process.pid, signal.SIGINT)
    assert server.stop() == 0
    client.disconnect()
