"""`meshyard bench scheduler`: what one decision of the scheduler costs, by how many users wait."""

import argparse
from typing import Any

from gateway.cli.output import add_json, check_json, write_json

HELP = "the cost of one decision at 1, 1,000 and 100,000 users with backlog, and the bytes of a queued job"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Measure, print a table, and with --json write."""
    from rich.console import Console

    from streams.simulate.decision_cost import measure

    check_json(arguments.json)
    with Console(stderr=True, soft_wrap=True).status("Filling the queue") as line:
        figures = measure(line.update)
    _print(figures)
    write_json(arguments.json, figures)
    return 0


def _print(figures: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("users with backlog", "jobs that wait", "us a decision", "of which dispatching", "us an arrival")
    for size in figures["sizes"]:
        table.add_row(
            f"{size['users']:,}",
            f"{size['queued_jobs']:,}",
            f"{size['us_per_decision']:.1f}",
            f"{size['us_per_dispatch']:.1f}",
            f"{size['us_per_arrival']:.1f}",
        )
    console = Console(soft_wrap=True)
    console.print(table)
    console.print(
        f"A decision: the end of a task is folded, and a free slot gets the next. A queued job takes "
        f"{figures['bytes_per_queued_job']:.0f} bytes, its request of {figures['request_bytes']} bytes included; "
        f"a user with backlog {figures['bytes_per_user']}."
    )
