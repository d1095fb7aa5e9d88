"""One ClickHouse for a whole test run, and a database of a test's own.

The server is the embedded one, as its own process, or an existing one named by `MESHYARD_TEST_CLICKHOUSE_URL`
(clickhouse://user:password@host:port/database).
"""

import os
import secrets
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit, urlunsplit

import pytest
from clickhouse_driver import Client

from analytics.client import connect

STOP_SECONDS = 20.0
EXISTING_URL = os.environ.get("MESHYARD_TEST_CLICKHOUSE_URL", "")


class ServerProcess:
    """The embedded server as a child process. Started by the constructor, which returns when it is ready."""

    def __init__(self, data_dir: Path, environ: Mapping[str, str] | None = None) -> None:
        self.password = (environ or {}).get("MESHYARD_CLICKHOUSE_PASSWORD", secrets.token_urlsafe(12))
        self._log: IO[bytes] = (data_dir.parent / f"{data_dir.name}.log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "analytics.local", "--data-dir", str(data_dir)],
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, "MESHYARD_CLICKHOUSE_PASSWORD": self.password, **(environ or {})},
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode()
        if not line.startswith("ready "):
            self.kill()
            raise RuntimeError(f"the embedded ClickHouse server did not start; see {self._log.name}")
        address = urlsplit(line.removeprefix("ready ").strip())
        self.port = address.port or 0
        self.url = f"clickhouse://{address.username}:{self.password}@{address.hostname}:{address.port}/default"

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        self.process.terminate()
        return self._reap()

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self._reap()

    def _reap(self) -> int:
        code = self.process.wait(STOP_SECONDS)
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._log.close()
        return code


def with_database(url: str, database: str) -> str:
    """The same server, another database."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{database}"))


def client_of(url: str, **options: Any) -> Client:
    """A client as our own code makes them."""
    client = connect(url)
    return client if not options else Client.from_url(url + "?" + "&".join(f"{k}={v}" for k, v in options.items()))


@pytest.fixture(scope="session")
def clickhouse_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The run's ClickHouse server; its database `default` is shared, so create your own."""
    if EXISTING_URL:
        yield EXISTING_URL
        return
    server = ServerProcess(tmp_path_factory.mktemp("clickhouse") / "data")
    yield server.url
    server.stop()


@pytest.fixture
def clickhouse_database(clickhouse_url: str) -> Iterator[str]:
    """The URL of an empty database of this test's own, dropped afterwards."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    client = connect(clickhouse_url)
    client.execute(f"CREATE DATABASE {name}")
    yield with_database(clickhouse_url, name)
    client.execute(f"DROP DATABASE {name} SYNC")
    client.disconnect()
