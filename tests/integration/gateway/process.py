"""A gateway as a child process, and what a client does with it."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx
import msgspec

T = TypeVar("T")

SERVER_KEY = "5b" * 32


def wait_for(probe: Callable[[], T | None], what: str, seconds: float = 60.0) -> T:
    """What the probe finds, as soon as it finds something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = probe()
        if found:
            return found
        time.sleep(0.02)
    raise TimeoutError(what)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class GatewayProcess:
    """`python -m gateway` on a port of its own; `data_dir` stays when it is killed and started again."""

    def __init__(self, bootstrap: str, domain: str, data_dir: Path, **more: str) -> None:
        self.data_dir = data_dir
        data_dir.mkdir(parents=True, exist_ok=True)
        key_file = data_dir / "server.key"
        key_file.write_text(SERVER_KEY)
        self.port = free_port()
        self.log = data_dir / "gateway.log"
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith("MESHYARD_")},
            "MESHYARD_KAFKA_BOOTSTRAP": bootstrap,
            "MESHYARD_DOMAIN": domain,
            "MESHYARD_DATA_DIR": str(data_dir),
            "MESHYARD_OBJECTS_URL": f"file://{data_dir}/objects",
            "MESHYARD_SERVER_KEY_FILE": str(key_file),
            "MESHYARD_GATEWAY_PORT": str(self.port),
            # A machine that runs other tests beside these may be slow to answer.
            "MESHYARD_ANSWER_TIMEOUT_MS": "5000",
            "MESHYARD_GATEWAY_ACCESS_LOG": "1",
            **more,
        }
        self.child: subprocess.Popen[bytes] | None = None

    def start(self, *, ready: bool = True) -> "GatewayProcess":
        """Starts it and waits until it is ready, or until the port answers."""
        with self.log.open("ab") as log:
            self.child = subprocess.Popen([sys.executable, "-m", "gateway"], env=self.env, stderr=log)
        try:
            wait_for(lambda: self._get("/readyz" if ready else "/healthz"), "gateway start")
        except BaseException:
            self.kill()
            raise
        return self

    def _get(self, path: str) -> bool:
        assert self.child is not None
        assert self.child.poll() is None, self.log.read_text()
        try:
            return httpx.get(f"{self.url}{path}").status_code == 200
        except httpx.TransportError:
            return False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, key: str) -> httpx.Client:
        """A client with a key."""
        return httpx.Client(base_url=self.url, headers={"authorization": f"Bearer {key}"}, timeout=30)

    def kill(self) -> None:
        """kill -9."""
        assert self.child is not None
        self.child.kill()
        self.child.wait()

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        assert self.child is not None
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
        return self.child.wait(20)


class Frame(msgspec.Struct):
    """One server-sent event."""

    event: str
    event_id: str | None
    data: dict[str, Any]


@contextlib.contextmanager
def frames(client: httpx.Client, job_id: str, last: str | None = None) -> Iterator[Iterator[Frame]]:
    """The events of a job as they come."""
    headers = {"last-event-id": last} if last is not None else {}
    with client.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield _frames(answer.iter_lines())


def _frames(lines: Iterator[str]) -> Iterator[Frame]:
    found: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if line and name:
            found[name] = value
        elif "data" in found:
            yield Frame(event=found["event"], event_id=found.get("id"), data=msgspec.json.decode(found["data"]))
            found = {}
        else:
            found = {}
