"""Loopback ports."""

import socket
from pathlib import Path

from streams.local import ports


def test_a_free_port_is_below_the_range_of_outgoing_connections() -> None:
    first_ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    port = ports.free_port()
    assert ports.is_free(port)
    assert ports.LOWEST <= port < max(first_ephemeral, ports.LOWEST + 1_000)


def test_a_port_that_someone_listens_on_is_not_free_and_its_holder_is_named() -> None:
    with socket.create_server((ports.LOOPBACK, 0)) as server:
        port = server.getsockname()[1]
        assert not ports.is_free(port)
        assert "pid" in (ports.holder(port) or "")
    assert ports.holder(port) is None
