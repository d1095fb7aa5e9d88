"""Settings of the analytics stage, read once from the environment and passed down."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from schemas.topics import DEAD, EVENTS

_DEFAULT_URL = "clickhouse://default@127.0.0.1:9000/default"


class SettingsError(ValueError):
    """An environment variable holds what it must not."""

    def __init__(self, variable: str, problem: str) -> None:
        super().__init__(f"{variable}: {problem}")
        self.variable = variable
        self.problem = problem


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """The embedded ClickHouse server. `port` 0 lets the system choose; only loopback addresses are accepted."""

    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 0
    user: str = "default"
    password: str = field(default="", repr=False)
    memory_bytes: int = 2_000_000_000

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "ServerSettings":
        """Reads MESHYARD_CLICKHOUSE_DATA_DIR, _HOST, _PORT, _USER, _PASSWORD and _MEMORY_BYTES.

        Raises:
            SettingsError: a number is none, the address is not loopback, the directory is missing.
        """
        data_dir = environ.get("MESHYARD_CLICKHOUSE_DATA_DIR", "")
        if not data_dir:
            raise SettingsError("MESHYARD_CLICKHOUSE_DATA_DIR", "is not set; name a directory or pass --data-dir")
        host = environ.get("MESHYARD_CLICKHOUSE_HOST", cls.host)
        if host not in ("127.0.0.1", "localhost"):
            raise SettingsError("MESHYARD_CLICKHOUSE_HOST", f"{host!r} is not loopback; run a ClickHouse server")
        return cls(
            data_dir=Path(data_dir),
            host=host,
            port=whole_number(environ, "MESHYARD_CLICKHOUSE_PORT", cls.port, 65_535),
            user=environ.get("MESHYARD_CLICKHOUSE_USER", cls.user),
            password=environ.get("MESHYARD_CLICKHOUSE_PASSWORD", cls.password),
            memory_bytes=whole_number(environ, "MESHYARD_CLICKHOUSE_MEMORY_BYTES", cls.memory_bytes, 2**50),
        )


def clickhouse_url(environ: Mapping[str, str]) -> str:
    """MESHYARD_CLICKHOUSE_URL: clickhouse://user:password@host:port/database."""
    return environ.get("MESHYARD_CLICKHOUSE_URL", _DEFAULT_URL)


def whole_number(environ: Mapping[str, str], variable: str, default: int, limit: int) -> int:
    """A number of 0 to `limit` from the environment. Raises SettingsError."""
    text = environ.get(variable, "")
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or int(text) > limit:
        raise SettingsError(variable, f"{text!r} is not a whole number from 0 to {limit}")
    return int(text)


@dataclass(frozen=True, kw_only=True)
class SinkSettings:
    """The sink. `sink_id` is its static membership in the group: a restart has its partitions back at once.

    A block closes after `linger_ms` (under steady load up to `max_linger_ms`), `block_rows` rows or `block_bytes` bytes
    of values. A block costs ClickHouse about 40 ms of CPU however small it is, because every view is planned for it, so
    blocks are few rather than fresh.
    """

    clickhouse_url: str = field(repr=False)
    topic: str = EVENTS
    dead_topic: str = DEAD
    group: str = "meshyard-sink"
    sink_id: str = "sink-0"
    linger_ms: int = 2000
    max_linger_ms: int = 6000
    block_rows: int = 10_000
    block_bytes: int = 8_388_608
    prices_file: Path | None = None

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "SinkSettings":
        """Reads MESHYARD_CLICKHOUSE_URL, MESHYARD_SINK_* and MESHYARD_PRICES_FILE. Raises SettingsError."""
        prices_file = environ.get("MESHYARD_PRICES_FILE", "")
        block_rows = whole_number(environ, "MESHYARD_SINK_BLOCK_ROWS", cls.block_rows, 1_000_000)
        if not block_rows:
            raise SettingsError("MESHYARD_SINK_BLOCK_ROWS", "must be at least 1")
        return cls(
            clickhouse_url=clickhouse_url(environ),
            topic=environ.get("MESHYARD_SINK_TOPIC", cls.topic),
            dead_topic=environ.get("MESHYARD_SINK_DEAD_TOPIC", cls.dead_topic),
            group=environ.get("MESHYARD_SINK_GROUP", cls.group),
            sink_id=environ.get("MESHYARD_SINK_ID", cls.sink_id),
            linger_ms=whole_number(environ, "MESHYARD_SINK_LINGER_MS", cls.linger_ms, 60_000),
            max_linger_ms=whole_number(environ, "MESHYARD_SINK_MAX_LINGER_MS", cls.max_linger_ms, 60_000),
            block_rows=block_rows,
            block_bytes=cls.block_bytes,
            prices_file=Path(prices_file) if prices_file else None,
        )
