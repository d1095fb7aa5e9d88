"""The embedded ClickHouse server: a thread and an engine session per client connection."""

import socket
import threading
import time

import structlog
from clickhouse_driver.protocol import ClientPacketTypes

from analytics.local.engine import Chunk, Engine, Session, Spool
from analytics.local.errors import Code, EngineError
from analytics.local.guard import Insert, Kind, Statement
from analytics.local.protocol import Progress, Query, Wire
from analytics.local.watcher import Watcher
from analytics.settings import ServerSettings

log = structlog.get_logger(__name__)

_SERVER_NAME = "ClickHouse"
_HELLO_TIMEOUT_SECONDS = 10.0
_TRANSFER_TIMEOUT_SECONDS = 300.0
_SHORT_DATETIME = b"\x08DateTime"  # a type name behind its length
_GONE = (EOFError, OSError)


class Server:
    """Serves one engine on one loopback port.

    `start` binds and returns; `stop` refuses new clients, cancels what runs and waits for the threads.
    """

    def __init__(self, engine: Engine, settings: ServerSettings) -> None:
        self._engine = engine
        self._settings = settings
        self._watcher = Watcher(engine)
        self._clients: set[_Client] = set()
        self._clients_lock = threading.Lock()
        self._listener: socket.socket | None = None
        self._acceptor: threading.Thread | None = None
        self._is_stopping = threading.Event()

    def start(self) -> int:
        """Listens; returns the port (chosen by the system when the settings say 0). Raises OSError."""
        listener = socket.create_server((self._settings.host, self._settings.port), backlog=64)
        self._listener = listener
        self._acceptor = threading.Thread(target=self._accept, args=(listener,), name="acceptor", daemon=True)
        self._watcher.start()
        self._acceptor.start()
        return int(listener.getsockname()[1])

    def stop(self) -> None:
        """Ends all connections."""
        self._is_stopping.set()
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        if self._acceptor is not None:
            self._acceptor.join(timeout=5)
        with self._clients_lock:
            clients = list(self._clients)
        for client in clients:
            client.abort()
        for client in clients:
            client.join(timeout=5)
        self._watcher.stop()

    def _accept(self, listener: socket.socket) -> None:
        while not self._is_stopping.is_set():
            try:
                sock, _ = listener.accept()
            except OSError:
                if self._is_stopping.is_set():
                    return
                time.sleep(0.1)  # out of descriptors: those who leave make room
                continue
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            client = _Client(self._engine, self._settings, self._watcher, sock)
            with self._clients_lock:
                self._clients = {each for each in self._clients if each.is_alive()} | {client}
            client.start()


class _Client(threading.Thread):
    """One connection, from handshake to hang-up."""

    def __init__(self, engine: Engine, settings: ServerSettings, watcher: Watcher, sock: socket.socket) -> None:
        super().__init__(name=f"client-{sock.fileno()}", daemon=True)
        self._engine = engine
        self._settings = settings
        self._watcher = watcher
        self._sock = sock
        self._session: Session | None = None

    def abort(self) -> None:
        """Ends the connection from another thread."""
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the client was faster

    def run(self) -> None:
        try:
            wire = Wire(self._sock)
            self._session = self._greet(wire)
            if self._session is not None:
                self._serve(wire, self._session)
        except _GONE:
            pass  # clients leave; whatever they ran is stopped
        except Exception:
            log.exception("client_failed")
        finally:
            if self._session is not None:
                self._session.close()
            self._sock.close()

    def _greet(self, wire: Wire) -> Session | None:
        self._sock.settimeout(_HELLO_TIMEOUT_SECONDS)
        try:
            hello = wire.read_hello()
            if not hello.is_allowed(self._settings.user, self._settings.password):
                raise EngineError(
                    Code.AUTHENTICATION_FAILED,
                    f"{hello.user}: Authentication failed: password is incorrect, or there is no user with such name.",
                )
            session = self._engine.session(hello.database)
        except EngineError as error:
            wire.send_error(error)
            return None
        version = [int(part) for part in self._engine.version.split(".")[:3]]
        wire.send_hello(_SERVER_NAME, (version[0], version[1], version[2]), self._engine.timezone)
        try:
            wire.read_addendum()
        except BaseException:
            session.close()
            raise
        return session

    def _serve(self, wire: Wire, session: Session) -> None:
        while True:
            self._sock.settimeout(None)
            packet = wire.read_packet_type()
            self._sock.settimeout(_TRANSFER_TIMEOUT_SECONDS)
            if packet == ClientPacketTypes.PING:
                wire.send_pong()
            elif packet == ClientPacketTypes.QUERY:
                if not self._answer(wire, session):
                    return
            elif packet != ClientPacketTypes.CANCEL:  # a Cancel that came behind the query's end
                wire.send_error(_unexpected(packet))
                return

    def _answer(self, wire: Wire, session: Session) -> bool:
        """Reads and runs one query; False when the stream of packets can no longer be followed."""
        try:
            query = wire.read_query()
            has_tables = _skip_tables(wire)
        except EngineError as error:
            wire.send_error(error)
            return False
        statement: Statement | None = None
        started = time.monotonic_ns()
        try:
            if has_tables:
                raise EngineError(Code.NOT_IMPLEMENTED, "External tables are not supported by this server")
            _check_encoding(query)
            statement = self._engine.guard.examine(query.text)
            session.prepare(query.settings, statement)
            _Answer(wire, session, self._watcher, self._sock).give(statement, query)
        except _UnreadableBlockError as error:
            wire.send_error(error.cause)
            return False
        except EngineError as error:
            wire.send_error(error)
        except _GONE:
            raise
        except Exception as error:  # ours: the client learns that its query failed, the log where
            log.exception("query_failed")
            wire.send_error(EngineError(Code.STD_EXCEPTION, f"{type(error).__name__} in the server"))
            return False
        finally:
            if statement is not None:
                self._finish(session, statement)
        if (time.monotonic_ns() - started) > 10_000_000_000 and statement is not None:
            log.info("slow_query", kind=statement.kind.value, seconds=round((time.monotonic_ns() - started) / 1e9, 1))
        return True

    def _finish(self, session: Session, statement: Statement) -> None:
        try:
            session.finish(statement)
        except EngineError as error:  # for example: another client dropped this session's database
            log.warning("session_not_restored", code=error.code)


class _UnreadableBlockError(Exception):
    """A client's block could not be read to its end, so the next packet's start is unknown."""

    def __init__(self, cause: EngineError) -> None:
        super().__init__(cause.message)
        self.cause = cause


class _Answer:
    """Runs one statement and sends what it gives."""

    def __init__(self, wire: Wire, session: Session, watcher: Watcher, sock: socket.socket) -> None:
        self._wire = wire
        self._session = session
        self._watcher = watcher
        self._sock = sock
        self._started_ns = time.monotonic_ns()

    def give(self, statement: Statement, query: Query) -> None:
        """Raises EngineError as the statement's outcome, EOFError or OSError when the client is gone."""
        if statement.insert is not None:
            self._insert(statement.insert)
            return
        with self._watcher.watch(self._sock, self._session.tag) as running:
            try:
                if statement.kind is Kind.SELECT:
                    self._stream(statement, query)
                else:
                    self._rows(statement, query)
            except EngineError as error:
                if not (running.is_canceled_by_client and error.code == Code.QUERY_WAS_CANCELLED):
                    raise
        self._wire.send_end()

    def _stream(self, statement: Statement, query: Query) -> None:
        rows = blocks = size_bytes = 0
        specs: tuple[str, ...] | None = None
        chunks = self._session.stream(statement, query.params)
        try:
            for chunk in chunks:
                if not blocks:
                    specs = self._full_specs(statement, query, chunk)
                rows += self._wire.send_chunk(chunk.data, has_header=blocks > 0, specs=specs)
                blocks += 1
                size_bytes += len(chunk.data)
                self._progress(chunk)
        finally:
            chunks.close()  # type: ignore[attr-defined]
        if not blocks:
            self._wire.send_header(self._session.header(statement, query.params))
        self._wire.send_profile_info(rows, blocks, size_bytes)

    def _full_specs(self, statement: Statement, query: Query, chunk: Chunk) -> tuple[str, ...] | None:
        """The Native format names DateTime('UTC') only DateTime, as for the oldest clients; the rest is as it was."""
        if _SHORT_DATETIME not in chunk.data:
            return None
        try:
            return tuple(spec for _, spec in self._session.header_aside(statement, query.params))
        except EngineError:
            return None  # a temporary table's: the values are right, their time zone is not told

    def _rows(self, statement: Statement, query: Query) -> None:
        chunk = self._session.run(statement, query.params)
        rows = 0
        if chunk.data:
            rows = self._wire.send_chunk(chunk.data, has_header=False)
        elif statement.kind is Kind.ROWS and statement.first != "kill":
            self._wire.send_header(self._session.header(statement, query.params))
        self._progress(chunk)
        self._wire.send_profile_info(rows, int(rows > 0), len(chunk.data))

    def _insert(self, insert: Insert) -> None:
        header = self._session.insert_header(insert)
        self._wire.send_header(header)
        spool = self._session.spool()
        try:
            self._receive(spool)
            written = 0
            if spool.rows:
                spool.complete()
                # Not watched: an INSERT stopped between its table and its views would leave them apart.
                written = self._session.insert(insert, header, spool)
        finally:
            spool.close()
        self._wire.send_profile_events()
        self._wire.send_progress(
            Progress(rows=0, bytes=0, written_rows=written, elapsed_ns=time.monotonic_ns() - self._started_ns)
        )
        self._wire.send_end()

    def _receive(self, spool: Spool) -> None:
        """Takes the client's blocks up to the empty one that ends them."""
        while True:
            packet = self._wire.read_packet_type()
            try:
                if packet == ClientPacketTypes.CANCEL:
                    raise EngineError(Code.QUERY_WAS_CANCELLED, "Query was cancelled. (QUERY_WAS_CANCELLED)")
                if packet != ClientPacketTypes.DATA:
                    raise _unexpected(packet)
                _, columns, rows = self._wire.read_block(spool.sink)
            except EngineError as error:
                raise _UnreadableBlockError(error) from error
            if not columns:
                return
            spool.rows += rows
            self._wire.send_profile_events()

    def _progress(self, chunk: Chunk) -> None:
        elapsed_ns = time.monotonic_ns() - self._started_ns
        self._started_ns += elapsed_ns
        rows, size_bytes = max(chunk.rows, chunk.storage_rows), max(len(chunk.data), chunk.storage_bytes)
        self._wire.send_progress(Progress(rows=rows, bytes=size_bytes, elapsed_ns=elapsed_ns))


class _Nowhere:
    """A writer that forgets."""

    def write(self, data: bytes) -> None:  # noqa: ARG002
        return

    def write_strings(self, items: tuple[bytes, ...]) -> None:  # noqa: ARG002
        return


def _unexpected(packet: int) -> EngineError:
    return EngineError(Code.UNEXPECTED_PACKET_FROM_CLIENT, f"Unexpected packet {packet} from client")


def _skip_tables(wire: Wire) -> bool:
    """Reads the external tables behind a query, up to the empty block; tells whether there were any."""
    found = False
    while True:
        packet = wire.read_packet_type()
        if packet != ClientPacketTypes.DATA:
            raise _unexpected(packet)
        _, columns, _ = wire.read_block(_Nowhere())
        if not columns:
            return found
        found = True


def _check_encoding(query: Query) -> None:
    """The engine's interface takes text; bytes that are no UTF-8 belong into typed columns."""
    for text in (query.text, *query.settings, *query.settings.values(), *query.params.values()):
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError:
                raise EngineError(Code.SYNTAX_ERROR, "Syntax error: the query is not valid UTF-8") from None
