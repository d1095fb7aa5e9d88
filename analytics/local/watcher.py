"""Stops the queries of clients that no longer wait for them."""

import selectors
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog
from clickhouse_driver.protocol import ClientPacketTypes

from analytics.local.engine import Engine

log = structlog.get_logger(__name__)

_WATCH_INTERVAL_SECONDS = 0.1
_CANCEL_BYTE = bytes([ClientPacketTypes.CANCEL])


@dataclass(kw_only=True, eq=False)
class Running:
    """A query in the engine, as the watcher sees it."""

    sock: socket.socket
    tag: str
    is_canceled_by_client: bool = False


class Watcher(threading.Thread):
    """Sees clients that hang up or send Cancel while their thread waits in the engine, and stops their query."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(name="watcher", daemon=True)
        self._engine = engine
        self._running: set[Running] = set()
        self._changed = threading.Condition()
        self._is_stopping = False

    def stop(self) -> None:
        with self._changed:
            self._is_stopping = True
            self._changed.notify()
        self.join(timeout=5)

    @contextmanager
    def watch(self, sock: socket.socket, tag: str) -> Iterator[Running]:
        """While in it, the query of the session `tag` is stopped when its client leaves."""
        running = Running(sock=sock, tag=tag)
        with self._changed:
            self._running.add(running)
            self._changed.notify()
        try:
            yield running
        finally:
            with self._changed:
                self._running.discard(running)

    def run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._running or self._is_stopping)
                if self._is_stopping:
                    return
                running = list(self._running)
            for each in running:
                self._look(each)
            time.sleep(_WATCH_INTERVAL_SECONDS)

    def _look(self, running: Running) -> None:
        try:
            if running.sock.fileno() < 0 or not _is_readable(running.sock):
                return
            first = running.sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            first = b""
        with self._changed:
            if running not in self._running or first not in (b"", _CANCEL_BYTE):
                return
            running.is_canceled_by_client = first == _CANCEL_BYTE
        try:
            # Again at each look: the engine may not have registered the query yet.
            self._engine.cancel(running.tag)
        except Exception as error:
            log.warning("cancel_failed", tag=running.tag, error=str(error))


def _is_readable(sock: socket.socket) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(sock, selectors.EVENT_READ)
        return bool(selector.select(timeout=0))
