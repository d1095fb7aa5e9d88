"""Reading ClickHouse: connections, named queries, free SQL within limits.

A named query is a file `queries/NAME.sql` that starts with `-- name: NAME` and `-- purpose: ...`; its
parameters are ClickHouse's typed ones, `{job_id:UUID}`, so that no value is ever pasted into SQL.
"""

import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from clickhouse_driver import Client
from clickhouse_driver.errors import Error, NetworkError, ServerException
from clickhouse_driver.util.helpers import parse_url

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_HEADER = re.compile(r"\A-- name: (\S+)\n-- purpose: (.+)\n")
_MAX_FREE_SQL_BYTES = 65_536
# Asynchronous inserts answer before the rows are in, and deduplicate by other rules.
_CONNECTION_SETTINGS: Mapping[str, Any] = {"async_insert": 0}
_FREE_SQL_SETTINGS: Mapping[str, Any] = {
    "readonly": 1,
    "max_execution_time": 30,
    "max_result_rows": 100_000,
    "result_overflow_mode": "throw",
    "max_memory_usage": 1_000_000_000,
    "max_query_size": _MAX_FREE_SQL_BYTES,
}


class AnalyticsUnavailableError(Exception):
    """ClickHouse cannot be reached. Carries the address, without the password."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"ClickHouse at {address} cannot be reached: {reason}")
        self.address = address
        self.reason = reason


class QueryRefusedError(Exception):
    """ClickHouse refused a query. `code` is ClickHouse's error code, `message` its first line."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"ClickHouse error {code}: {message}")
        self.code = code
        self.message = message


class UnknownQueryError(LookupError):
    """There is no named query of this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no query named {name!r}")
        self.name = name


class Table(NamedTuple):
    """A result: column names, and rows in their order."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


class NamedQuery(NamedTuple):
    """A query of `queries/`: what it is for, and its SQL."""

    name: str
    purpose: str
    sql: str


def connect(url: str) -> Client:
    """A clickhouse-driver client for clickhouse://user:password@host:port/database; connects with its first query.

    One client serves one thread. Parameters of its queries are typed ones: `{name:Type}`.

    Raises:
        ValueError: the address is none.
    """
    host, options = parse_url(url)
    settings = {**options.pop("settings", {}), **_CONNECTION_SETTINGS, "server_side_params": True}
    options.setdefault("connect_timeout", 5)
    options.setdefault("client_name", "meshyard")
    return Client(host, settings=settings, **options)


def without_password(url: str) -> str:
    """The address as logs and messages may show it."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    user = f"{parts.username}@" if parts.username else ""
    port = f":{parts.port}" if parts.port else ""
    return urlunsplit(parts._replace(netloc=f"{user}{parts.hostname}{port}"))


@cache
def named_queries() -> Mapping[str, NamedQuery]:
    """All queries of `queries/`, by name.

    Raises:
        ValueError: a file lacks its two header lines or calls itself by another name.
    """
    found = {}
    for file in sorted(resources.files("analytics").joinpath("queries").iterdir(), key=lambda each: each.name):
        if not file.name.endswith(".sql"):
            continue
        text = file.read_text(encoding="utf-8")
        header = _HEADER.match(text)
        name = file.name.removesuffix(".sql")
        if header is None or header.group(1) != name or not _NAME.fullmatch(name):
            raise ValueError(f"queries/{file.name} must start with '-- name: {name}' and '-- purpose: ...'")
        found[name] = NamedQuery(name=name, purpose=header.group(2).strip(), sql=text[header.end() :].strip())
    return found


class Analytics:
    """What the gateway and its command line ask of ClickHouse. Not for use by several threads at once."""

    def __init__(self, url: str) -> None:
        self._address = without_password(url)
        self._client = connect(url)

    def query(self, name: str, params: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Rows of a named query, as dictionaries by column name.

        Raises:
            UnknownQueryError: no such query.
            QueryRefusedError: a parameter is missing or of the wrong type, or a limit was met.
            AnalyticsUnavailableError: no server.
        """
        found = named_queries().get(name)
        if found is None:
            raise UnknownQueryError(name)
        table = self._execute(found.sql, params, {"max_execution_time": 60})
        return [dict(zip(table.columns, row, strict=True)) for row in table.rows]

    def sql(self, text: str) -> Table:
        """Runs a user's SQL read-only: 64 kB of text, 30 s, 1 GB of memory, 100,000 rows.

        Raises:
            QueryRefusedError: it writes, exceeds a limit, or is no SQL.
            AnalyticsUnavailableError: no server.
        """
        if len(text.encode()) > _MAX_FREE_SQL_BYTES:
            raise QueryRefusedError(62, f"Max query size exceeded: at most {_MAX_FREE_SQL_BYTES} bytes")
        return self._execute(text, None, _FREE_SQL_SETTINGS)

    def close(self) -> None:
        """Closes the connection."""
        self._client.disconnect()

    def _execute(self, sql: str, params: Mapping[str, Any] | None, settings: Mapping[str, Any]) -> Table:
        try:
            rows, columns = self._client.execute(
                sql, dict(params) if params else None, with_column_types=True, settings=dict(settings)
            )
        except ServerException as error:
            message = str(error.message).removeprefix("DB::Exception: ").split(" Stack trace:")[0].strip()
            raise QueryRefusedError(error.code, message) from error
        except (NetworkError, EOFError, OSError) as error:
            raise AnalyticsUnavailableError(self._address, type(error).__name__) from error
        except Error as error:
            raise QueryRefusedError(error.code, str(error)) from error
        return Table(columns=tuple(name for name, _ in columns), rows=rows)
