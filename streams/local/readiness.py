"""Whether a broker answers: an open port is not enough, it opens before requests are served."""

import os
import socket
import struct

API_VERSIONS = 18


def answers_api_versions(host: str, port: int, timeout_seconds: float = 1.0) -> bool:
    """Ask for ApiVersions (version 0, which every broker knows) and read the answer's error code."""
    correlation_id = os.getpid() & 0x7FFFFFFF
    request = struct.pack(">hhih", API_VERSIONS, 0, correlation_id, -1)  # -1: no client id
    try:
        with socket.create_connection((host, port), timeout_seconds) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            head = _receive(connection, 10)
    except OSError:
        return False
    if len(head) < 10:
        return False
    _size, answered_id, error_code = struct.unpack(">iih", head)
    return bool(answered_id == correlation_id and error_code == 0)


def _receive(connection: socket.socket, count: int) -> bytes:
    received = b""
    while len(received) < count:
        part = connection.recv(count - len(received))
        if not part:
            break
        received += part
    return received
