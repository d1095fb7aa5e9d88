"""Applies `migrations/*.sql` in their order, each once, and keeps `prices` as `prices.toml` says.

Every statement is safe to repeat (IF NOT EXISTS), so a migration that died half-way, or two sinks that start at
once, need no lock. A published file never changes; a change is a new file.
"""

import hashlib
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

import structlog
from clickhouse_driver import Client

log = structlog.get_logger(__name__)

_FILE = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")
_STATEMENT_END = re.compile(r";\s*(?:\n|\Z)")
_COMMENT = re.compile(r"^\s*--.*$", re.MULTILINE)
_TABLE = """
CREATE TABLE IF NOT EXISTS schema_migrations
(version UInt32, name String, sha256 String, applied_at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC'))
ENGINE = ReplacingMergeTree ORDER BY version
"""


class MigrationError(Exception):
    """The migrations on disk and in the database do not fit together."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"migration {name}: {problem}")
        self.name = name
        self.problem = problem


@dataclass(frozen=True, kw_only=True)
class Migration:
    """One file of `migrations/`."""

    version: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        """Of the statements; comments may be improved."""
        return hashlib.sha256("\n".join(self.statements).encode()).hexdigest()

    @property
    def statements(self) -> list[str]:
        """The file's statements without comments."""
        parts = _STATEMENT_END.split(_COMMENT.sub("", self.sql))
        return [part.strip() for part in parts if part.strip()]


@dataclass(frozen=True, kw_only=True)
class Price:
    """What a GPU-second costs in a pool ('*': every other one) from a time on."""

    pool: str
    resource_class: str
    valid_from: datetime
    usd_per_gpu_second: float


def migrations(folder: Traversable | None = None) -> list[Migration]:
    """All migrations, numbered from 1 without gaps. Raises MigrationError."""
    where = folder if folder is not None else resources.files("analytics").joinpath("migrations")
    found = []
    for file in sorted(where.iterdir(), key=lambda each: each.name):
        match = _FILE.fullmatch(file.name)
        if match is not None:
            sql = file.read_text(encoding="utf-8")
            found.append(Migration(version=int(match.group(1)), name=match.group(2), sql=sql))
        elif file.name.endswith(".sql"):
            raise MigrationError(file.name, "is not called NNNN_name.sql")
    for expected, migration in enumerate(found, start=1):
        if migration.version != expected:
            raise MigrationError(migration.name, f"has number {migration.version}, expected {expected}")
    return found


def migrate(client: Client, wanted: Sequence[Migration] | None = None) -> list[Migration]:
    """Brings the client's database to the newest schema; returns what was applied.

    Raises:
        MigrationError: an applied migration has changed since, or the database is newer than this program.
        clickhouse_driver.errors.Error: the server refused a statement.
    """
    known = list(wanted) if wanted is not None else migrations()
    client.execute(_TABLE)
    applied = dict(client.execute("SELECT version, sha256 FROM schema_migrations FINAL"))
    newest = max(applied, default=0)
    if newest > len(known):
        raise MigrationError(str(newest), "is applied but unknown here; this program is older than the database")
    done = []
    for migration in known:
        if migration.version in applied:
            if applied[migration.version] != migration.sha256:
                raise MigrationError(migration.name, "has changed since it was applied; add a new one instead")
            continue
        for statement in migration.statements:
            client.execute(statement)
        client.execute(
            "INSERT INTO schema_migrations (version, name, sha256) VALUES",
            [(migration.version, migration.name, migration.sha256)],
        )
        log.info("migration_applied", version=migration.version, name=migration.name)
        done.append(migration)
    return done


def read_prices(file: Path | None = None) -> list[Price]:
    """The price list. Raises ValueError naming the entry that is wrong."""
    text = file.read_text() if file is not None else resources.files("analytics").joinpath("prices.toml").read_text()
    prices = []
    for number, entry in enumerate(tomllib.loads(text).get("price", []), start=1):
        try:
            price = Price(
                pool=str(entry["pool"]),
                resource_class=str(entry["resource_class"]),
                valid_from=entry["valid_from"],
                usd_per_gpu_second=float(entry["usd_per_gpu_second"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"price {number}: {error!r}; it needs pool, resource_class, valid_from, usd_per_gpu_second"
            ) from None
        if not isinstance(price.valid_from, datetime) or price.valid_from.tzinfo is None:
            raise ValueError(f"price {number}: valid_from must be a time with its zone, such as 2026-01-01T00:00:00Z")
        if not 0 <= price.usd_per_gpu_second < float("inf"):
            raise ValueError(f"price {number}: usd_per_gpu_second is {price.usd_per_gpu_second}; it cannot be negative")
        prices.append(price)
    return prices


def store_prices(client: Client, prices: Sequence[Price]) -> None:
    """Makes `prices` hold these; an entry of the same pool, class and time is replaced."""
    rows = [(p.pool, p.resource_class, p.valid_from.astimezone(UTC), p.usd_per_gpu_second) for p in prices]
    if rows:
        client.execute("INSERT INTO prices (pool, resource_class, valid_from, usd_per_gpu_second) VALUES", rows)
