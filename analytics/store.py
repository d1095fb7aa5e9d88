"""The sink's side of ClickHouse: schema, blocks with tokens, and which errors are worth waiting for."""

from collections.abc import Sequence
from pathlib import Path

from clickhouse_driver.errors import Error

from analytics.client import connect, without_password
from analytics.intents import Intent, Source
from analytics.migrate import migrate, read_prices, store_prices
from analytics.records import COLUMNS, Row

_INSERT = f"INSERT INTO job_events ({', '.join(COLUMNS)}) VALUES"


class StoreUnavailableError(Exception):
    """ClickHouse did not take something. The same thing must be tried again: whether it is in is not known."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"ClickHouse at {address}: {reason}")
        self.address = address
        self.reason = reason


class Store:
    """One connection to ClickHouse, made anew after errors."""

    def __init__(self, url: str, prices_file: Path | None) -> None:
        self._address = without_password(url)
        self._client = connect(url)
        self._prices_file = prices_file
        self._table_epoch: str | None = None

    def prepare(self) -> None:
        """Brings schema and prices up to date.

        Raises:
            StoreUnavailableError: not now.
            MigrationError, ValueError: never, as things are.
        """
        prices = read_prices(self._prices_file)
        try:
            migrate(self._client)
            store_prices(self._client, prices)
            found = self._client.execute(
                "SELECT toString(uuid) FROM system.tables WHERE database = currentDatabase() AND name = 'job_events'"
            )
        except (Error, EOFError, OSError) as error:
            raise self._unavailable(error) from error
        self._table_epoch = found[0][0]

    def insert(self, rows: Sequence[Row], intent: Intent, source: Source) -> None:
        """Inserts one block; a block that is in already changes nothing. Raises StoreUnavailableError."""
        if self._table_epoch is None:
            self.prepare()
        assert self._table_epoch is not None
        settings = {
            "insert_deduplicate": 1,
            "insert_deduplication_token": intent.token(source, self._table_epoch),
            "deduplicate_blocks_in_dependent_materialized_views": 1,
            "async_insert": 0,
            "insert_block_size": max(len(rows), 1),
        }
        try:
            self._client.execute(_INSERT, rows, settings=settings)
        except (Error, EOFError, OSError) as error:
            self._table_epoch = None  # the table may have been replaced; asked again before the repeat
            raise self._unavailable(error) from error

    def close(self) -> None:
        """Closes the connection."""
        self._client.disconnect()

    def _unavailable(self, error: BaseException) -> StoreUnavailableError:
        lines = str(error).splitlines()
        return StoreUnavailableError(self._address, f"{type(error).__name__}: {' '.join(lines[:2])[:300]}")
