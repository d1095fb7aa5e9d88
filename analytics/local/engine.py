"""The chDB engine as a server uses it: one per process and data directory, one session per client connection."""

import itertools
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import structlog
from chdb.state.sqlitelike import Connection
from clickhouse_driver.bufferedreader import CompressedBufferedReader
from clickhouse_driver.bufferedwriter import CompressedBufferedWriter

from analytics.local.errors import Code, EngineError
from analytics.local.guard import STATEMENTS, Guard, Insert, Kind, Statement
from analytics.local.native import Reader, Writer

log = structlog.get_logger(__name__)

BUFFER_BYTES = 262_144
_CONTROL = "CONTROL"  # chDB's own class for statements that leave the database: files, processes
# What a server of this version has as defaults where chDB, made for the command line, differs.
_BASE_SETTINGS: Mapping[str, str] = {"implicit_select": "0", "allow_introspection_functions": "0", "async_insert": "0"}
# An INSERT's blocks reach the table in the order in which they came, so that a repeat forms the same blocks.
_ORDERED_INSERT: Mapping[str, str] = {"max_threads": "1", "max_insert_threads": "1", "max_parsing_threads": "1"}
_SETTING_NAME = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True, kw_only=True)
class EngineLimits:
    """What the engine may use: memory of all queries together, and the caches of index marks and keys, in bytes."""

    memory_bytes: int = 2_000_000_000
    cache_bytes: int = 67_108_864


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A piece of a result in Native format (one block, or two when totals follow), and what was read for it."""

    data: bytes
    rows: int
    storage_rows: int
    storage_bytes: int


def quote(text: str) -> str:
    """A ClickHouse string literal."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def identifier(name: str) -> str:
    """A quoted ClickHouse identifier."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def memory_reader(data: bytes) -> Reader:
    """clickhouse-driver's buffered reader over bytes; EOFError behind the end."""
    pieces = iter((data,))

    def following() -> bytes:
        piece = next(pieces, b"")
        if not piece:
            raise EOFError("Unexpected end of a Native block")
        return piece

    reader: Reader = CompressedBufferedReader(following, len(data))
    return reader


class Engine:
    """Owns the engine of one data directory.

    `cancel` may be called from any thread; a session belongs to one thread at a time.
    """

    def __init__(self, directory: Path, limits: EngineLimits) -> None:
        """Opens the directory; its lock is the caller's business. Raises EngineError."""
        directory = directory.absolute()
        self._spool = directory / "spool"
        shutil.rmtree(self._spool, ignore_errors=True)  # what a killed process left behind
        self._spool.mkdir(parents=True)
        data = directory / "data"
        data.mkdir(exist_ok=True)
        options = {
            "max_server_memory_usage": limits.memory_bytes,
            "mark_cache_size": limits.cache_bytes,
            "primary_index_cache_size": limits.cache_bytes,
            "query_condition_cache_size": limits.cache_bytes // 4,
            "compiled_expression_cache_size": limits.cache_bytes // 4,
        }
        self._address = f"{data}?" + "&".join(f"{name}={value}" for name, value in options.items())
        self._numbers = itertools.count(1)
        self._control_lock = Lock()
        self._control = self.connect()
        self._use_plain_default_database(data)
        self._control.query("USE default")
        functions = self._column("SELECT name FROM system.table_functions")
        self.guard = Guard(frozenset(functions))
        self.version = self._column("SELECT version()")[0]
        self.timezone = self._column("SELECT timezone()")[0]

    def connect(self) -> Connection:
        """A new connection to the engine, with the server's default settings."""
        connection = Connection(self._address)
        connection.query("SET " + ", ".join(f"{name} = {value}" for name, value in _BASE_SETTINGS.items()))
        return connection

    def session(self, database: str) -> "Session":
        """A session whose current database is `database`. Raises EngineError (UNKNOWN_DATABASE)."""
        return Session(self, self._spool, next(self._numbers), database or "default")

    def cancel(self, tag: str) -> None:
        """Stops the query that the session with this tag is running, if any."""
        with self._control_lock:
            self._control.query(f"KILL QUERY WHERE Settings['log_comment'] = {quote(tag)} ASYNC")

    def close(self) -> None:
        """Closes the engine; its parts are on disk as soon as an INSERT has answered."""
        with self._control_lock:
            self._control.close()

    def _column(self, query: str) -> list[str]:
        text: str = self._control.query(query, "TSVRaw").bytes().decode()
        return text.splitlines()

    def _use_plain_default_database(self, data: Path) -> None:
        """chDB's `default` is an overlay on the file system: SELECT * FROM '/etc/passwd' reads the file.

        Its tables are those of the plain database of that name, so that one takes its place: attached when it has
        tables, else made anew, for an empty one cannot be attached after its overlay.
        """
        definition, tables = data / "metadata" / "default.sql", data / "metadata" / "default"
        self._control.query("DETACH DATABASE IF EXISTS default")
        if definition.exists() and any(tables.glob("*.sql")):
            self._control.query("ATTACH DATABASE default")
            return
        definition.unlink(missing_ok=True)
        if tables.is_symlink():
            tables.unlink()
        self._control.query("CREATE DATABASE default ENGINE = Atomic")


class Session:
    """One client's connection to the engine: current database, settings, temporary tables."""

    def __init__(self, engine: Engine, spool: Path, number: int, database: str) -> None:
        self.tag = f"connection-{number}"
        self._engine = engine
        self._spool = spool
        self._number = number
        self._database = database
        self._connection = engine.connect()
        self._main: Connection | None = None  # waits here while a read-only query has its own connection
        self._applied: dict[str, str] = {}  # settings of the last query that still stand in the engine
        self._saved: dict[str, str] = {}  # what they were before, where a SET statement may have changed it
        self._has_set = False
        try:
            self._run(f"USE {identifier(database)}")
            self._run(f"SET log_comment = {quote(self.tag)}")
        except EngineError:
            self.close()
            raise

    def prepare(self, settings: Mapping[str, str], statement: Statement) -> None:
        """Brings the engine's settings to `settings` for the next statement. Raises EngineError."""
        for name in settings:
            if not _SETTING_NAME.fullmatch(name):
                raise EngineError(Code.SYNTAX_ERROR, f"Invalid name of a setting: {name!r}")
            self._engine.guard.check_setting(name)
        wanted = {name: value for name, value in settings.items() if name != "log_comment"}
        if statement.kind is Kind.INSERT_DATA:
            wanted = {**wanted, **_ORDERED_INSERT}
        readonly = wanted.pop("readonly", "0")
        if readonly != "0":
            # The engine refuses to leave read-only mode, so such a query has a connection of its own.
            self._main, self._connection = self._connection, self._engine.connect()
            self._run(f"USE {identifier(self._database)}")
            changes = [*wanted.items(), ("log_comment", self.tag), ("readonly", readonly)]
            self._run("SET " + ", ".join(f"{name} = {quote(value)}" for name, value in changes))
            return
        self._change(wanted)

    def finish(self, statement: Statement) -> None:
        """To be called after each statement, failed ones included."""
        if self._main is not None:
            self._connection.close()
            self._connection, self._main = self._main, None
            return
        if statement.first == "use":
            self._database = self.rows("SELECT currentDatabase()")[0]
        self._has_set = self._has_set or statement.first == "set"

    def stream(self, statement: Statement, params: Mapping[str, str]) -> Iterator[Chunk]:
        """Runs a SELECT; chunks come as the engine makes them. Closing the iterator stops the query."""
        self._refuse_control(statement)
        try:
            result: Any = self._connection.send_query(statement.text, "Native", params=dict(params))
        except Exception as error:
            raise EngineError.from_engine(error) from error
        try:
            while True:
                try:
                    piece = result.fetch()
                except Exception as error:
                    raise EngineError.from_engine(error) from error
                if piece is None:
                    return
                yield _chunk(piece)
        finally:
            result.cancel()

    def run(self, statement: Statement, params: Mapping[str, str]) -> Chunk:
        """Runs any other statement and returns all it answers."""
        if statement.first not in STATEMENTS or (statement.kind is Kind.ROWS and statement.first != "kill"):
            self._refuse_control(statement)
        return _chunk(self._run(statement.text, "Native", params))

    def header(self, statement: Statement, params: Mapping[str, str]) -> list[tuple[str, str]]:
        """Names and types of a result without rows."""
        if statement.kind is Kind.SELECT:
            return [(row[0], row[1]) for row in self._describe(f"({statement.text}\n)", params)]
        names, specs = self._run(statement.text, "TSVRawWithNamesAndTypes", params).bytes().decode().split("\n")[:2]
        return list(zip(names.split("\t"), specs.split("\t"), strict=True)) if names else []

    def header_aside(self, statement: Statement, params: Mapping[str, str]) -> list[tuple[str, str]]:
        """`header` of a SELECT while its stream is open: by another connection, which knows no temporary tables."""
        aside = Session(self._engine, self._spool, self._number, self._database)
        try:
            return aside.header(statement, params)
        finally:
            aside.close()

    def insert_header(self, insert: Insert) -> list[tuple[str, str]]:
        """Names and types of the columns that an INSERT's blocks must have. Raises EngineError."""
        lines = self._describe(f"TABLE {insert.table}")
        known = {line[0]: (line[1], line[2]) for line in lines}
        every = tuple(line[0] for line in lines if line[2] in ("", "DEFAULT"))
        names = every if insert.columns is None else insert.columns
        for name in names:
            if name not in known:
                raise EngineError(Code.NO_SUCH_COLUMN_IN_TABLE, f"No such column {name} in table {insert.table}")
            if known[name][1] in ("MATERIALIZED", "ALIAS"):
                raise EngineError(
                    Code.ILLEGAL_COLUMN, f"Cannot insert column {name}, because it is {known[name][1]} column"
                )
        return [(name, known[name][0]) for name in names]

    def spool(self) -> "Spool":
        """A file that takes an INSERT's blocks; the caller closes it."""
        return Spool(self._spool / f"{self._number}.native")

    def insert(self, insert: Insert, header: list[tuple[str, str]], spool: "Spool") -> int:
        """Inserts a spool's blocks in one statement and returns the rows written, views included.

        By INSERT ... SELECT FROM file(): chDB's streaming insert reports success although a view or a
        constraint has refused the block.
        """
        structure = ", ".join(f"{identifier(name)} {spec}" for name, spec in header)
        source = f"file({quote(str(spool.path))}, Native, {quote(structure)})"
        query = f"{insert.prefix} SELECT * FROM {source}"  # noqa: S608 - the client's own statement, our quoted path
        return int(self._run(query).rows_written())

    def rows(self, query: str) -> list[str]:
        """Lines of a query of the server's own."""
        text: str = self._run(query, "TSVRaw").bytes().decode()
        return text.splitlines()

    def close(self) -> None:
        """Ends the session; temporary tables go with it."""
        self._connection.close()
        if self._main is not None:
            self._main.close()

    def _change(self, wanted: dict[str, str]) -> None:
        if wanted == self._applied:
            return
        fresh = [name for name in wanted if name not in self._applied]
        if self._has_set and fresh:
            names = ", ".join(quote(name) for name in fresh)
            query = f"SELECT name, value FROM system.settings WHERE changed AND name IN ({names})"  # noqa: S608 - quoted
            for line in self.rows(query):
                name, _, value = line.partition("\t")
                self._saved[name] = value
        parts = []
        for name in self._applied:
            if name not in wanted:
                before = self._saved.pop(name, _BASE_SETTINGS.get(name))
                parts.append(f"{name} = DEFAULT" if before is None else f"{name} = {quote(before)}")
        parts += [f"{name} = {quote(value)}" for name, value in wanted.items() if self._applied.get(name) != value]
        if parts:
            self._run("SET " + ", ".join(parts))
        self._applied = wanted

    def _describe(self, what: str, params: Mapping[str, str] | None = None) -> list[list[str]]:
        """Rows of (name, type, kind of default, ...)."""
        query = f"DESCRIBE {what} SETTINGS print_pretty_type_names = 0"
        text = self._run(query, "JSONCompactEachRow", params).bytes().decode()
        return [json.loads(line) for line in text.splitlines()]

    def _refuse_control(self, statement: Statement) -> None:
        """A second opinion on the guard's: the engine's own parser says what leaves the database."""
        found: dict[str, Any] = self._connection._conn.classify_query(statement.text)
        is_query = found["statement_count"] > 0  # else the engine's syntax error says more
        if is_query and (found["query_class"].name == _CONTROL or statement.first not in STATEMENTS):
            raise EngineError(Code.ACCESS_DENIED, f"{statement.first.upper()} is not allowed on this server, or not so")

    def _run(self, query: str, output: str = "Native", params: Mapping[str, str] | None = None) -> Any:
        try:
            return self._connection.query(query, output, params=dict(params or {}))
        except Exception as error:
            raise EngineError.from_engine(error) from error


class Spool:
    """A Native file of one INSERT's blocks. The page cache keeps it: it is never synced and soon removed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = 0
        self._file = path.open("wb")
        self.sink: Writer = CompressedBufferedWriter(self._file, BUFFER_BYTES)

    def complete(self) -> None:
        """Hands all bytes to the file, for the engine to read."""
        self.sink.flush()  # type: ignore[attr-defined]
        self._file.flush()

    def close(self) -> None:
        """Removes the file."""
        self._file.close()
        os.unlink(self.path)


def _chunk(result: Any) -> Chunk:
    return Chunk(
        data=bytes(result.bytes()),
        rows=result.rows_read(),
        storage_rows=result.storage_rows_read(),
        storage_bytes=result.storage_bytes_read(),
    )
