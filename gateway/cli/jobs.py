"""`meshyard jobs [ID]`: one's jobs, or one of them; `--cancel` and `--save` act on it."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.cli.errors import CommandError, UsageError
from gateway.cli.target import add_target, find_target

if TYPE_CHECKING:
    from gateway.cli.api import Api

HELP = "list your jobs, or show, cancel or save one"
MOST_LISTED = 200


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("id", nargs="?", metavar="ID", help="one job (default: the newest ones)")
    parser.add_argument(
        "--limit", type=limit, default=20, metavar="N", help=f"how many to list, 1 to {MOST_LISTED} (20)"
    )
    parser.add_argument("--state", help="list only jobs in this state")
    parser.add_argument("--cancel", action="store_true", help="cancel the job")
    parser.add_argument("--save", type=Path, metavar="DIR", help="save the job's files into a directory")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_target(parser)


def limit(text: str) -> int:
    """How many jobs to list. Raises ArgumentTypeError."""
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MOST_LISTED:
        raise argparse.ArgumentTypeError(f"{text!r}; give a number from 1 to {MOST_LISTED}")
    return int(text)


def run(arguments: argparse.Namespace) -> int:
    """List, show, cancel or save."""
    if arguments.id is None and (arguments.cancel or arguments.save):
        raise UsageError("ID", "not given; name the job (`meshyard jobs` lists them)")
    target = find_target(arguments)

    from gateway.cli.api import Api

    with Api(target) as api:
        if arguments.id is None:
            jobs = api.jobs(arguments.limit, arguments.state)
            if arguments.json:
                sys.stdout.write(json.dumps(jobs, indent=1) + "\n")
            else:
                _print_list(jobs)
            return 0
        if arguments.cancel:
            answer = api.cancel(arguments.id)
            sys.stdout.write(f"{json.dumps(answer) if arguments.json else answer.get('status', 'requested')}\n")
            return 0
        job = api.job(arguments.id)
        if arguments.save:
            _save(api, job, arguments.save)
        elif arguments.json:
            sys.stdout.write(json.dumps(job, indent=1) + "\n")
        else:
            _print_job(job)
    return 0


def _print_list(jobs: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("job", "state", "stage", "progress", "pipeline", "created")
    for job in jobs:
        progress = f"{job['progress']:.0f} %"
        table.add_row(job["id"], job["state"], job["stage"] or "-", progress, job["pipeline_id"], job["created_at"])
    Console(soft_wrap=True).print(table)


def _print_job(job: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(soft_wrap=True)
    console.print(f"{job['id']} [bold]{job['state']}[/bold], {job['progress']:.0f} %, created {job['created_at']}")
    if job.get("queue_position") is not None:
        console.print(f"place in the queue: {job['queue_position']}")
    if job.get("error"):
        console.print(f"{job['error']['class']}: {job['error']['message']}", markup=False)
    table = Table("stage", "state", "attempt", "wait", "run")
    for stage in job["stages"]:
        wait, ran = (seconds(stage[name]) for name in ("wait_seconds", "run_seconds"))
        table.add_row(stage["name"], stage["state"], str(stage["attempt"]), wait, ran)
    console.print(table)
    for asset in job["assets"]:
        console.print(f"{asset['name']}  {asset['bytes'] / 1e3:.0f} kB  {asset['media_type']}")


def seconds(value: float | None) -> str:
    """A duration for a table."""
    return "-" if value is None else f"{value:.2f} s"


def _save(api: "Api", job: dict[str, Any], folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for asset in job["assets"]:
            file = folder / asset["name"].replace("/", "-")
            api.download(job["id"], asset["name"], file)
            sys.stdout.write(f"{file}\n")
    except OSError as error:
        raise CommandError(f"--save: {folder}: {error.strerror}; choose a directory that you may write to") from error
