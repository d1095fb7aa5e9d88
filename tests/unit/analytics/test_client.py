"""Addresses, named queries, settings: what needs no server."""

from pathlib import Path

import pytest

from analytics.client import (
    Analytics,
    AnalyticsUnavailableError,
    QueryRefusedError,
    UnknownQueryError,
    without_password,
)
from analytics.settings import ServerSettings, SettingsError


def test_passwords_do_not_reach_messages() -> None:
    url = "clickhouse://local:s3cret@127.0.0.1:1/default"
    assert without_password(url) == "clickhouse://local@127.0.0.1:1/default"
    assert without_password("clickhouse://127.0.0.1:1/default") == "clickhouse://127.0.0.1:1/default"
    with pytest.raises(AnalyticsUnavailableError) as caught:
        Analytics(url).sql("SELECT 1")
    assert "s3cret" not in str(caught.value)
    assert "127.0.0.1:1" in str(caught.value)


def test_an_unknown_query_is_named() -> None:
    with pytest.raises(UnknownQueryError, match="no_such_query"):
        Analytics("clickhouse://127.0.0.1:1/default").query("no_such_query")


def test_long_sql_is_refused_before_it_is_sent() -> None:
    with pytest.raises(QueryRefusedError):
        Analytics("clickhouse://127.0.0.1:1/default").sql("SELECT '" + "x" * 70_000 + "'")


@pytest.mark.parametrize(
    ("environ", "variable"),
    [
        ({}, "MESHYARD_CLICKHOUSE_DATA_DIR"),
        ({"MESHYARD_CLICKHOUSE_DATA_DIR": "d", "MESHYARD_CLICKHOUSE_PORT": "x"}, "MESHYARD_CLICKHOUSE_PORT"),
        ({"MESHYARD_CLICKHOUSE_DATA_DIR": "d", "MESHYARD_CLICKHOUSE_PORT": "65536"}, "MESHYARD_CLICKHOUSE_PORT"),
        ({"MESHYARD_CLICKHOUSE_DATA_DIR": "d", "MESHYARD_CLICKHOUSE_HOST": "0.0.0.0"}, "MESHYARD_CLICKHOUSE_HOST"),
    ],
)
def test_bad_settings_name_their_variable(environ: dict[str, str], variable: str) -> None:
    with pytest.raises(SettingsError) as caught:
        ServerSettings.from_environ(environ)
    assert caught.value.variable == variable


def test_settings_hide_the_password() -> None:
    settings = ServerSettings.from_environ(
        {
            "MESHYARD_CLICKHOUSE_DATA_DIR": "/d",
            "MESHYARD_CLICKHOUSE_PASSWORD": "s3cret",
            "MESHYARD_CLICKHOUSE_PORT": "9000",
        }
    )
    assert (settings.data_dir, settings.port, settings.password) == (Path("/d"), 9000, "s3cret")
    assert "s3cret" not in repr(settings)
