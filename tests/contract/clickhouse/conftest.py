"""Clients of a database of the test's own, with each way of compressing blocks."""

from collections.abc import Iterator

import pytest
from clickhouse_driver import Client

from analytics.client import connect
from tests.support.clickhouse import EXISTING_URL

embedded_only = pytest.mark.skipif(bool(EXISTING_URL), reason="states what the embedded server adds or refuses")


@pytest.fixture
def client(clickhouse_database: str) -> Iterator[Client]:
    connected = connect(clickhouse_database)
    yield connected
    connected.disconnect()


@pytest.fixture(params=["none", "lz4"])
def any_client(request: pytest.FixtureRequest, clickhouse_database: str) -> Iterator[Client]:
    suffix = "" if request.param == "none" else f"?compression={request.param}"
    connected = connect(clickhouse_database + suffix)
    yield connected
    connected.disconnect()
