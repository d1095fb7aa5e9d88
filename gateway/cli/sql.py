"""`meshyard sql "SELECT ..."`: ask ClickHouse, within limits and read-only."""

import argparse
import csv
import json
import os
import sys
from pathlib import Path

from gateway.cli.errors import CommandError
from gateway.cli.target import add_data_dir, data_dir_of

HELP = "ask ClickHouse (read-only)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("query", metavar="QUERY", help="one SELECT; `-` reads it from standard input")
    parser.add_argument("--format", choices=("table", "json", "csv"), default="table", help="how to print rows (table)")
    add_data_dir(parser)


def clickhouse_url(data_dir: Path) -> str:
    """MESHYARD_CLICKHOUSE_URL, else the local stack's. Raises CommandError."""
    given = os.environ.get("MESHYARD_CLICKHOUSE_URL")
    if given:
        return given
    from gateway.supervisor.state import running

    stack = running(data_dir)
    if stack is None:
        raise CommandError(f"no stack runs on {data_dir}; start one with `meshyard up`, or set MESHYARD_CLICKHOUSE_URL")
    return Path(stack.clickhouse_url_file).read_text().strip()


def run(arguments: argparse.Namespace) -> int:
    """Run the query and print its rows."""
    query = sys.stdin.read() if arguments.query == "-" else arguments.query
    url = clickhouse_url(data_dir_of(arguments))

    from analytics.client import Analytics, AnalyticsUnavailableError, QueryRefusedError

    analytics = Analytics(url)
    try:
        columns, rows = analytics.sql(query)
    except (AnalyticsUnavailableError, QueryRefusedError) as error:
        raise CommandError(str(error)) from error
    finally:
        analytics.close()
    if arguments.format == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
    elif arguments.format == "json":
        for row in rows:
            sys.stdout.write(json.dumps(dict(zip(columns, row, strict=True)), default=str) + "\n")
    else:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table()
        for column in columns:
            table.add_column(Text(column))
        for row in rows:
            table.add_row(*(Text(str(value)) for value in row))
        Console(soft_wrap=True).print(table)
    return 0
