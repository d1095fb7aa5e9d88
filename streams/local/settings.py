"""Settings of the local broker, read once from the environment."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


def default_cache_dir(env: Mapping[str, str]) -> Path:
    """Where downloads are kept between runs: `MESHYARD_CACHE_DIR`, else `~/.cache/meshyard`."""
    chosen = env.get("MESHYARD_CACHE_DIR")
    if chosen:
        return Path(chosen).expanduser().absolute()
    base = env.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "meshyard"


@dataclass(frozen=True, kw_only=True)
class LocalBrokerSettings:
    """What a broker needs to know before it starts."""

    data_dir: Path
    """Holds the log directories, the ports, the log file and the lock; kept over restarts."""

    cache_dir: Path
    """Holds the jars, shared by all data directories of a user."""

    port: int | None = None
    """The clients' port; None takes the one kept in the data directory, or a free one the first time."""

    repository_url: str | None = None
    """The Maven repository that jars are fetched from; None is Maven Central."""

    heap_mb: int = 512

    @classmethod
    def from_env(
        cls,
        data_dir: Path,
        port: int | None = None,
        *,
        env: Mapping[str, str] = os.environ,
    ) -> "LocalBrokerSettings":
        """Settings for a data directory, the rest from `MESHYARD_CACHE_DIR` and `MESHYARD_MAVEN_URL`."""
        return cls(
            data_dir=data_dir.expanduser().absolute(),
            cache_dir=default_cache_dir(env),
            port=port,
            repository_url=env.get("MESHYARD_MAVEN_URL") or None,
        )
