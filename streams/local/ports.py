"""Loopback ports for servers that keep them over restarts."""

import random
import socket
from pathlib import Path

LOOPBACK = "127.0.0.1"
LOWEST = 20_000


def is_free(port: int) -> bool:
    """Whether a server could listen on a loopback port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: TIME_WAIT does not count
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A free port below the range that the kernel gives to outgoing connections.

    A port inside that range could be taken by any client while its server restarts, even by a client that
    tries to reach that very server.
    """
    highest = max(LOWEST + 1_000, _first_ephemeral_port())
    for _ in range(1_000):
        port = random.randrange(LOWEST, highest)  # noqa: S311 (no secret)
        if is_free(port):
            return port
    raise OSError("no free loopback port found")


def _first_ephemeral_port() -> int:
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 32_768


def holder(port: int) -> str | None:
    """Who listens on a port, as `name (pid 12)`; None when the system does not tell."""
    import psutil

    try:
        for connection in psutil.net_connections("tcp"):
            here = getattr(connection.laddr, "port", None) == port  # an empty tuple where there is no address
            if here and connection.status == psutil.CONN_LISTEN and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except (psutil.Error, OSError):
        pass
    return None
