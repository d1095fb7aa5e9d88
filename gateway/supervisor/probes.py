"""Whether a server answers, asked in its own protocol and without its client library."""

import http.client
import socket
from typing import Final

from streams.local.ports import LOOPBACK

PROBE_SECONDS: Final = 2.0

# ClickHouse's native protocol: packet 0 is Hello, both ways. clickhouse-driver speaks this revision, too.
_HELLO: Final = 0
_REVISION: Final = 54_460


def listens(pid: int, port: int) -> bool:
    """Whether a process itself listens on a port: an answer there might be another program's."""
    import psutil

    try:
        connections = psutil.Process(pid).net_connections("tcp")
    except psutil.Error:
        return False
    return any(one.status == psutil.CONN_LISTEN and getattr(one.laddr, "port", None) == port for one in connections)


def gateway_says(port: int, path: str) -> tuple[int, str]:
    """Status and body of a GET on the gateway; status 0 when it does not answer."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=PROBE_SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read(65_536).decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return 0, "the gateway does not answer"
    finally:
        connection.close()


def clickhouse_answers(port: int, user: str, password: str) -> bool:
    """Whether ClickHouse takes this user: says Hello and reads the first byte of the answer."""
    greeting = bytes([_HELLO]) + _text("meshyard") + _number(1) + _number(0) + _number(_REVISION)
    greeting += _text("default") + _text(user) + _text(password)
    try:
        with socket.create_connection((LOOPBACK, port), PROBE_SECONDS) as connection:
            connection.sendall(greeting)
            return connection.recv(1) == bytes([_HELLO])
    except OSError:
        return False


def _number(value: int) -> bytes:
    """An unsigned LEB128 number."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _text(value: str) -> bytes:
    data = value.encode()
    return _number(len(data)) + data
