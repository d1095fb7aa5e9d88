"""Fetching jars from a small Maven repository on loopback."""

import gc
import hashlib
import io
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock as ThreadLock
from threading import Thread
from types import SimpleNamespace

import pytest
from rich.console import Console

from streams.local.errors import CorruptDownloadError, DiskFullError, DownloadFailedError
from streams.local.jars import Jar, Lock, ensure_jars, read_lock

CONTENTS = {f"org.example:part-{n}:1.{n}": f"jar {n}".encode() * 500 for n in range(6)}


class Repository(ThreadingHTTPServer):
    """A Maven repository that counts requests and can be told to serve something else."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: Counter[str] = Counter()
        self.lock = ThreadLock()
        self.files: dict[str, bytes] = {}
        for coordinate, content in CONTENTS.items():
            group, artefact, version = coordinate.split(":")
            path = f"/maven2/{group.replace('.', '/')}/{artefact}/{version}/{artefact}-{version}.jar"
            self.files[path] = content

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/maven2"


class _Handler(BaseHTTPRequestHandler):
    server: Repository

    def do_GET(self) -> None:
        with self.server.lock:
            self.server.requests[self.path] += 1
        content = self.server.files.get(self.path)
        self.send_response(200 if content is not None else 404)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        self.wfile.write(content or b"")

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def repository() -> Iterator[Repository]:
    with Repository() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def lock() -> Lock:
    return Lock(
        version="1",
        jars=tuple(
            Jar(coordinate=coordinate, sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
            for coordinate, content in CONTENTS.items()
        ),
    )


def test_fetches_every_jar_once_and_then_none(repository: Repository, lock: Lock, tmp_path: Path) -> None:
    paths = ensure_jars(tmp_path, repository.url, lock=lock)
    assert [path.read_bytes() for path in paths] == list(CONTENTS.values())
    before = repository.requests.total()
    assert ensure_jars(tmp_path, repository.url, lock=lock) == paths
    assert repository.requests.total() == before
    assert not list(paths[0].parent.glob(".fetch-*"))


def test_threads_that_start_at_once_share_one_download(repository: Repository, lock: Lock, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: ensure_jars(tmp_path, repository.url, lock=lock), range(4)))
    assert len(set(results)) == 1
    assert {repository.requests[path] for path in repository.files} == {1}


def test_processes_that_start_at_once_share_one_download(repository: Repository, lock: Lock, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "from streams.local.jars import Jar, Lock, ensure_jars\n"
        f"lock = Lock(version='1', jars={lock.jars!r})\n"
        "ensure_jars(Path(sys.argv[1]), sys.argv[2], lock=lock)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path), repository.url]
    processes = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert {repository.requests[path] for path in repository.files} == {1}


def test_a_damaged_jar_in_the_cache_is_fetched_again(repository: Repository, lock: Lock, tmp_path: Path) -> None:
    paths = ensure_jars(tmp_path, repository.url, lock=lock)
    paths[2].write_bytes(b"damaged")
    ensure_jars(tmp_path, repository.url, lock=lock)
    assert paths[2].read_bytes() == list(CONTENTS.values())[2]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_corrupted_download_is_refused_removed_and_fetched_by_the_next_start(
    repository: Repository, lock: Lock, tmp_path: Path
) -> None:
    path = next(path for path in repository.files if "part-3" in path)
    sound, repository.files[path] = repository.files[path], b"something else"
    with pytest.raises(CorruptDownloadError, match="start again") as caught:
        ensure_jars(tmp_path, repository.url, lock=lock)
    assert caught.value.coordinate == "org.example:part-3:1.3"
    assert not (tmp_path / "kafka" / "1" / "part-3-1.3.jar").exists()
    repository.files[path] = sound
    ensure_jars(tmp_path, repository.url, lock=lock)


def test_a_repository_without_the_jar_is_named(repository: Repository, lock: Lock, tmp_path: Path) -> None:
    repository.files.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # jgo leaves the refused response open
        with pytest.raises(DownloadFailedError, match=r"does not have it.*MESHYARD_MAVEN_URL"):
            ensure_jars(tmp_path, repository.url, lock=lock)
        gc.collect()


def test_no_network_is_told_with_its_remedy(lock: Lock, tmp_path: Path) -> None:
    with Repository() as server:
        url = server.url  # closed now: nobody listens there
    with pytest.raises(DownloadFailedError, match=r"refused.*check the network"):
        ensure_jars(tmp_path, url, lock=lock)


def test_too_little_space_is_told_before_the_download(
    repository: Repository, lock: Lock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(DiskFullError, match="free some space"):
        ensure_jars(tmp_path, repository.url, lock=lock)
    assert repository.requests.total() == 0


def test_progress_is_shown_on_a_console(repository: Repository, lock: Lock, tmp_path: Path) -> None:
    screen = io.StringIO()
    ensure_jars(tmp_path, repository.url, Console(file=screen, force_terminal=True), lock=lock)
    assert "Fetching Apache Kafka" in screen.getvalue()


def test_the_shipped_lock_names_kafka_and_a_log_binding() -> None:
    shipped = read_lock()
    coordinates = {jar.coordinate for jar in shipped.jars}
    assert f"org.apache.kafka:kafka_2.13:{shipped.version}" in coordinates
    assert any("log4j-slf4j-impl" in coordinate for coordinate in coordinates)
    assert all(len(jar.sha256) == 64 and jar.bytes > 0 for jar in shipped.jars)
