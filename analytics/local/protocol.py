"""The server's side of ClickHouse's native TCP protocol, on clickhouse-driver's codecs.

Packets as in ClickHouse's src/Server/TCPHandler.cpp at revision 54460: the newest one before password rules
and chunked packets, new enough for typed query parameters.
"""

import hmac
import io
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clickhouse_driver import defines
from clickhouse_driver.block import BlockInfo
from clickhouse_driver.bufferedreader import BufferedSocketReader
from clickhouse_driver.bufferedwriter import BufferedSocketWriter, CompressedBufferedWriter
from clickhouse_driver.compression.lz4 import Compressor
from clickhouse_driver.protocol import ClientPacketTypes, ServerPacketTypes
from clickhouse_driver.reader import read_binary_str, read_binary_uint8
from clickhouse_driver.streams.compressed import CompressedBlockInputStream, CompressedBlockOutputStream
from clickhouse_driver.varint import read_varint, write_varint
from clickhouse_driver.writer import write_binary_int32, write_binary_str, write_binary_uint8

from analytics.local.engine import BUFFER_BYTES, memory_reader
from analytics.local.errors import Code, EngineError
from analytics.local.native import Framing, Reader, Writer, copy_columns, write_header

REVISION = defines.DBMS_MIN_PROTOCOL_VERSION_WITH_SERVER_QUERY_TIME_IN_PROGRESS
_PROFILE_EVENTS = 14  # clickhouse-driver names it only in newer packet tables
_MAX_TEXT_BYTES = 4 * 1024 * 1024
_MAX_SETTINGS = 1000
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "b": "\b", "f": "\f", "a": "\a", "v": "\v"}
_PROFILE_EVENT_COLUMNS = [
    ("host_name", "String"), ("current_time", "DateTime"), ("thread_id", "UInt64"),
    ("type", "Enum8('increment' = 1, 'gauge' = 2)"), ("name", "String"), ("value", "Int64"),
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Hello:
    """A client's first packet."""

    client_name: str
    revision: int
    database: str
    user: str
    password: str

    def is_allowed(self, user: str, password: str) -> bool:
        """Compares in constant time."""
        names = hmac.compare_digest(self.user.encode(), user.encode())
        return hmac.compare_digest(self.password.encode(), password.encode()) and names


@dataclass(frozen=True, kw_only=True)
class Query:
    """A query packet: settings of this query, typed parameters as the text formats write them."""

    query_id: str
    settings: Mapping[str, str]
    is_compressed: bool
    text: str
    params: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Rows and bytes since the last progress packet."""

    rows: int
    bytes: int
    written_rows: int = 0
    elapsed_ns: int = 0


class _Info:
    """What the driver's streams ask their context for."""

    used_revision = REVISION


class _Context:
    server_info = _Info()


class Wire:
    """Reads a client's packets and writes the server's. Raises EOFError and OSError when the client is gone."""

    def __init__(self, sock: socket.socket) -> None:
        self.source: Any = BufferedSocketReader(sock, BUFFER_BYTES)
        self.sink: Any = BufferedSocketWriter(sock, BUFFER_BYTES)
        self._compressed_in = CompressedBlockInputStream(self.source, _Context())
        self._compressed_out = CompressedBlockOutputStream(Compressor, BUFFER_BYTES, self.sink, _Context())
        self.is_compressed = False
        self.revision = REVISION

    # What the client sends

    def read_packet_type(self) -> int:
        """The next packet's type."""
        return int(read_varint(self.source))

    def read_hello(self) -> Hello:
        """The handshake. Raises EngineError for what is no ClickHouse client, or one too old."""
        if self.read_packet_type() != ClientPacketTypes.HELLO:
            raise EngineError(Code.UNEXPECTED_PACKET_FROM_CLIENT, "Unexpected packet from client (expected Hello)")
        name = self._text()
        read_varint(self.source)
        read_varint(self.source)
        revision = int(read_varint(self.source))
        database, user, password = self._text(), self._text(), self._text()
        if revision < REVISION:
            raise EngineError(Code.NOT_IMPLEMENTED, f"Client revision {revision} is older than {REVISION}; update it")
        return Hello(client_name=name, revision=revision, database=database, user=user, password=password)

    def read_addendum(self) -> None:
        """What clients since revision 54458 send after the server's hello: a quota key."""
        self._text()

    def read_query(self) -> Query:
        """The query packet behind its type."""
        query_id = self._text()
        self._skip_client_info()
        settings = self._settings()
        self._text()  # the secret of queries between servers
        read_varint(self.source)  # the stage: always complete
        is_compressed = bool(read_varint(self.source))
        text = self._text()
        params = {name: _unquoted(value) for name, value in self._settings().items()}
        self.is_compressed = is_compressed
        return Query(query_id=query_id, settings=settings, is_compressed=is_compressed, text=text, params=params)

    def read_block(self, sink: Writer) -> tuple[str, int, int]:
        """Copies a data packet's block, behind its type, to `sink` in Native format.

        Returns (name of the external table, columns, rows). Nothing is copied of a block without columns.
        Raises EngineError when the block cannot be read to its end; the connection is then of no use.
        """
        table = self._text()
        source: Reader = self._compressed_in.fin if self.is_compressed else self.source
        BlockInfo().read(source)
        columns, rows = int(read_varint(source)), int(read_varint(source))
        if columns:
            copy_columns((columns, rows), source, sink, Framing(read_flags=True, write_flags=False))
        return table, columns, rows

    # What the server sends

    def send_hello(self, name: str, version: tuple[int, int, int], timezone: str) -> None:
        """Answers a handshake."""
        write_varint(ServerPacketTypes.HELLO, self.sink)
        write_binary_str(name, self.sink)
        write_varint(version[0], self.sink)
        write_varint(version[1], self.sink)
        write_varint(REVISION, self.sink)
        write_binary_str(timezone, self.sink)
        write_binary_str(name, self.sink)
        write_varint(version[2], self.sink)
        self.sink.flush()

    def send_pong(self) -> None:
        """Answers a ping."""
        write_varint(ServerPacketTypes.PONG, self.sink)
        self.sink.flush()

    def send_error(self, error: EngineError) -> None:
        """An exception packet; it ends the query."""
        write_varint(ServerPacketTypes.EXCEPTION, self.sink)
        write_binary_int32(error.code, self.sink)
        write_binary_str("DB::Exception", self.sink)
        write_binary_str(error.message, self.sink)
        write_binary_str("", self.sink)
        write_binary_uint8(0, self.sink)
        self.sink.flush()

    def send_header(self, header: list[tuple[str, str]]) -> None:
        """A data packet without rows: the names and types of what follows."""
        write_header(header, self._start_block())
        self._end_block()

    def send_chunk(self, data: bytes, has_header: bool, specs: tuple[str, ...] | None = None) -> int:
        """Sends Native data as data packets (behind their header unless `has_header`); returns the rows sent.

        `specs` are the columns' types where they differ from those in `data`.
        """
        source: Any = memory_reader(data)
        framing = Framing(read_flags=False, write_flags=True, specs=specs)
        total = 0
        while True:
            shape = int(read_varint(source)), int(read_varint(source))
            if not has_header:
                # Names and types stand between the columns' data, so the first block is copied before it is sent.
                copied = io.BytesIO()
                buffer = CompressedBufferedWriter(copied, BUFFER_BYTES)
                self.send_header(copy_columns(shape, source, buffer, framing))
                buffer.flush()
                self._start_block().write(copied.getvalue())
                has_header = True
            else:
                copy_columns(shape, source, self._start_block(), framing)
            self._end_block()
            total += shape[1]
            if source.position == source.current_buffer_size:
                return total

    def send_progress(self, progress: Progress) -> None:
        """A progress packet."""
        write_varint(ServerPacketTypes.PROGRESS, self.sink)
        for value in (progress.rows, progress.bytes, 0, progress.written_rows, 0, progress.elapsed_ns):
            write_varint(value, self.sink)

    def send_profile_info(self, rows: int, blocks: int, size_bytes: int) -> None:
        """How much the result had."""
        write_varint(ServerPacketTypes.PROFILE_INFO, self.sink)
        for value in (rows, blocks, size_bytes):
            write_varint(value, self.sink)
        write_binary_uint8(0, self.sink)
        write_varint(0, self.sink)
        write_binary_uint8(0, self.sink)

    def send_profile_events(self) -> None:
        """Clients wait for this packet after each block of an INSERT; it is never compressed."""
        write_varint(_PROFILE_EVENTS, self.sink)
        write_binary_str("", self.sink)
        BlockInfo().write(self.sink)
        write_header(_PROFILE_EVENT_COLUMNS, self.sink)
        self.sink.flush()

    def send_end(self) -> None:
        """The end of a query."""
        write_varint(ServerPacketTypes.END_OF_STREAM, self.sink)
        self.sink.flush()

    def _start_block(self) -> Any:
        write_varint(ServerPacketTypes.DATA, self.sink)
        write_binary_str("", self.sink)
        out = self._compressed_out.fout if self.is_compressed else self.sink
        BlockInfo().write(out)
        return out

    def _end_block(self) -> None:
        if self.is_compressed:
            self._compressed_out.finalize()
        else:
            self.sink.flush()

    def _text(self) -> str:
        size_bytes = int(read_varint(self.source))
        if size_bytes > _MAX_TEXT_BYTES:
            raise EngineError(Code.SYNTAX_ERROR, f"A string of {size_bytes} bytes; the limit is {_MAX_TEXT_BYTES}")
        raw: bytes = self.source.read(size_bytes)
        return raw.decode("utf-8", "surrogateescape")

    def _settings(self) -> dict[str, str]:
        found: dict[str, str] = {}
        while name := self._text():
            read_binary_uint8(self.source)  # important or custom; what the engine does not know it refuses
            found[name] = self._text()
            if len(found) > _MAX_SETTINGS:
                raise EngineError(Code.SYNTAX_ERROR, f"More than {_MAX_SETTINGS} settings or parameters")
        return found

    def _skip_client_info(self) -> None:
        if not read_binary_uint8(self.source):
            return
        for _ in range(3):  # initial user, query id, address
            self._text()
        self.source.read(8)  # start time
        read_binary_uint8(self.source)  # interface
        for _ in range(3):  # operating system's user, host, client name
            self._text()
        for _ in range(3):  # version, revision
            read_varint(self.source)
        self._text()  # quota key
        read_varint(self.source)  # distributed depth
        read_varint(self.source)  # patch version
        if read_binary_uint8(self.source):  # OpenTelemetry: trace and span ids, state, flags
            self.source.read(24)
            read_binary_str(self.source)
            self.source.read(1)
        for _ in range(3):  # parallel replicas
            read_varint(self.source)


def _unquoted(value: str) -> str:
    """A parameter comes as a quoted literal whose content is escaped once more, as the text formats do."""
    if len(value) < 2 or not (value[0] == value[-1] == "'"):
        return value
    return _ESCAPE.sub(lambda found: _ESCAPED.get(found.group(1), found.group(1)), value[1:-1])
