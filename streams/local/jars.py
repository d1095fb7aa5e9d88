"""The broker's jars: fetched by Maven coordinate, checked against the lock, kept in the cache directory.

The lock (`jars.lock.json`) names each jar by coordinate and SHA-256, so what runs does not depend on the
repository that it comes from. `jgo` knows the repository's layout; nothing is resolved at run time.
"""

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from streams.local.errors import CorruptDownloadError, DiskFullError, DownloadFailedError
from streams.local.files import locked

if TYPE_CHECKING:
    from rich.console import Console

FETCHES_AT_ONCE = 4
ATTEMPTS = 3
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)

Advance = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class Jar:
    """One line of the lock."""

    coordinate: str
    """`group:artefact:version`."""

    sha256: str
    bytes: int

    @property
    def file_name(self) -> str:
        """The name that Maven repositories give the jar."""
        _, artefact, version = self.coordinate.split(":")
        return f"{artefact}-{version}.jar"


@dataclass(frozen=True, kw_only=True)
class Lock:
    """All jars of one Kafka version."""

    version: str
    jars: tuple[Jar, ...]


@cache
def read_lock() -> Lock:
    """The lock that this package ships."""
    record = json.loads(files("streams.local").joinpath("jars.lock.json").read_text())
    return Lock(version=record["version"], jars=tuple(Jar(**jar) for jar in record["jars"]))


def ensure_jars(
    cache_dir: Path, repository_url: str | None, console: "Console | None" = None, lock: Lock | None = None
) -> tuple[Path, ...]:
    """The paths of all jars, each with the SHA-256 of the lock; fetches what is missing.

    Processes that call this at once wait for one another. A damaged jar in the cache is removed and fetched
    again. `console` shows one bar for the whole download.

    `repository_url` None is Maven Central. Raises DownloadFailedError, CorruptDownloadError, DiskFullError.
    """
    lock = lock or read_lock()
    folder = cache_dir / "kafka" / lock.version
    paths = tuple(folder / jar.file_name for jar in lock.jars)
    if not _missing(folder, lock):
        return paths
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / ".lock"):
            missing = _missing(folder, lock)  # again: the one who held the lock may have fetched them
            if missing:
                _fetch_all(missing, folder, repository_url, console)
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        needed = sum(jar.bytes for jar in lock.jars)
        raise DiskFullError(cache_dir, needed, shutil.disk_usage(folder).free) from error
    return paths


def _missing(folder: Path, lock: Lock) -> list[Jar]:
    missing = []
    for jar in lock.jars:
        path = folder / jar.file_name
        try:
            if _sha256(path) == jar.sha256:
                continue
            path.unlink(missing_ok=True)
        except FileNotFoundError:
            pass
        missing.append(jar)
    return missing


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetch_all(jars: list[Jar], folder: Path, repository_url: str | None, console: "Console | None") -> None:
    needed = sum(jar.bytes for jar in jars)
    free = shutil.disk_usage(folder).free
    if free < needed * 2:  # a jar stands in the staging folder before it moves to its place
        raise DiskFullError(folder, needed * 2, free)
    with (
        tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as staging,
        _progress(console, needed) as advance,
        ThreadPoolExecutor(FETCHES_AT_ONCE, thread_name_prefix="jars") as pool,
    ):
        futures = [pool.submit(_fetch, jar, Path(staging), repository_url, advance) for jar in jars]
        try:
            for jar, future in zip(jars, futures, strict=True):
                os.replace(future.result(), folder / jar.file_name)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _progress(console: "Console | None", total_bytes: int) -> Iterator[Advance]:
    if console is None:
        yield lambda _: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("Fetching Apache Kafka", total=total_bytes)
        yield lambda count: progress.advance(task, count)


def _fetch(jar: Jar, staging: Path, repository_url: str | None, advance: Advance) -> Path:
    """One jar into a folder of its own in `staging`; the caller moves it to its place."""
    from jgo.constants import MAVEN_CENTRAL_URL
    from jgo.maven import MavenContext, PythonResolver

    def report(_name: str, _total_bytes: int) -> AbstractContextManager[Advance]:
        return nullcontext(advance)

    context = MavenContext(
        repo_cache=staging,
        local_repos=[],
        remote_repos={"central": repository_url or MAVEN_CENTRAL_URL},
        resolver=PythonResolver(progress_callback=report),
    )
    artifact = context.create_dependency(jar.coordinate).artifact
    for attempt in range(1, ATTEMPTS + 1):
        try:
            path = Path(artifact.resolve())
            break
        except (OSError, RuntimeError) as error:  # jgo: RuntimeError when the repository does not have it
            if isinstance(error, OSError) and error.errno in NO_SPACE:
                raise
            if isinstance(error, RuntimeError) or attempt == ATTEMPTS:
                raise DownloadFailedError(jar.coordinate, repository_url or "Maven Central", _reason(error)) from error
            if artifact.cached_path:
                artifact.cached_path.unlink(missing_ok=True)  # jgo refuses to write over a partial file
    found = _sha256(path)
    if found != jar.sha256:
        path.unlink()
        raise CorruptDownloadError(jar.coordinate, jar.sha256, found)
    return path


def _reason(error: Exception) -> str:
    """The innermost cause in one short line; requests wraps the useful part three deep."""
    cause: BaseException = error
    while (inner := cause.__cause__ or cause.__context__) is not None:
        cause = inner
    if isinstance(error, RuntimeError):
        return "the repository does not have it"
    return " ".join(f"{type(cause).__name__}: {cause}".split())[:160]
