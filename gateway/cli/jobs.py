"""`meshyard jobs [ACTION] [ID]`: list one's jobs, show one, save its files, cancel, pause, resume, reprioritise."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gateway.cli.errors import CommandError, UsageError
from gateway.cli.submit import priority
from gateway.cli.target import add_target, find_target

if TYPE_CHECKING:
    from gateway.cli.api import Api

HELP = "list your jobs, or show, save, cancel, pause, resume or reprioritise one"
MOST_LISTED = 200
ACTIONS: Final = ("list", "show", "cancel", "pause", "resume", "reprioritise")
_PIPE_WIDTH: Final = 160
# Actions that may be meant for all of the user's jobs.
_OF_ALL: Final = ("pause", "resume")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "words",
        nargs="*",
        metavar="ACTION ID",
        help=f"one of {', '.join(ACTIONS)} and a job; reprioritise takes 1 (first) to 5 behind it "
        "(default: list; an ID alone is shown)",
    )
    parser.add_argument(
        "--limit", type=limit, default=20, metavar="N", help=f"how many to list, 1 to {MOST_LISTED} (20)"
    )
    parser.add_argument("--state", help="list only jobs in this state")
    parser.add_argument("--all", action="store_true", help="pause or resume all of your jobs that wait")
    parser.add_argument("--cancel", action="store_true", help="the same as the action `cancel`")
    parser.add_argument("--save", type=Path, metavar="DIR", help="save the job's files into a directory")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_target(parser)


def limit(text: str) -> int:
    """How many jobs to list. Raises ArgumentTypeError."""
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MOST_LISTED:
        raise argparse.ArgumentTypeError(f"{text!r}; give a number from 1 to {MOST_LISTED}")
    return int(text)


def wish_of(arguments: argparse.Namespace) -> tuple[str, str | None, int | None]:
    """Action, job and priority. Raises UsageError."""
    words: list[str] = list(arguments.words)
    if words and words[0] in ACTIONS:
        action = words.pop(0)
    elif arguments.cancel:
        action = "cancel"
    else:
        action = "show" if words or arguments.save else "list"
    job_id = words.pop(0) if words and action != "list" else None
    rank: int | None = None
    if action == "reprioritise" and job_id is not None:
        try:
            rank = priority(words.pop(0) if words else "")
        except argparse.ArgumentTypeError as error:
            raise UsageError("PRIORITY", str(error)) from None
    if words:
        raise UsageError("ACTION", f"{words[0]!r} is too much; give one of {', '.join(ACTIONS)}, then one job")
    if arguments.all and (action not in _OF_ALL or job_id is not None):
        raise UsageError("--all", f"goes with {' and '.join(_OF_ALL)} alone, without a job")
    if job_id is None and action != "list" and not arguments.all:
        raise UsageError("ID", "not given; name the job (`meshyard jobs` lists them)")
    return action, job_id, rank


def run(arguments: argparse.Namespace) -> int:
    """List, show, save or change."""
    action, job_id, rank = wish_of(arguments)
    target = find_target(arguments)

    from gateway.cli.api import Api

    with Api(target) as api:
        if action == "list":
            jobs = api.jobs(arguments.limit, arguments.state)
            if arguments.json:
                sys.stdout.write(json.dumps(jobs, indent=1) + "\n")
            else:
                _print_list(jobs)
            return 0
        if job_id is None or action != "show":
            answer = _change(api, action, job_id, rank)
            sys.stdout.write(f"{json.dumps(answer) if arguments.json else answer.get('status', 'requested')}\n")
            return 0
        job = api.job(job_id)
        if arguments.save:
            _save(api, job, arguments.save)
        elif arguments.json:
            sys.stdout.write(json.dumps(job, indent=1) + "\n")
        else:
            _print_job(job)
    return 0


def _change(api: "Api", action: str, job_id: str | None, rank: int | None) -> dict[str, Any]:
    if job_id is None:
        return api.change_all(action)
    if action == "cancel":
        return api.cancel(job_id)
    return api.change(job_id, priority=rank) if rank is not None else api.change(job_id, paused=action == "pause")


def _print_list(jobs: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    table.add_column("job", no_wrap=True, min_width=36)  # whole, to be copied
    for name in ("state", "stage", "progress", "lane", "priority", "pipeline", "created"):
        table.add_column(name)
    for job in jobs:
        table.add_row(
            job["id"],
            job["state"] + (" (paused)" if job["paused"] else ""),
            job["stage"] or "-",
            f"{job['progress']:.0f} %",
            job["lane"] or "-",
            str(job["priority"] or "-"),
            job["pipeline_id"],
            job["created_at"],
        )
    Console(soft_wrap=True, width=None if sys.stdout.isatty() else _PIPE_WIDTH).print(table)


def _print_job(job: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(soft_wrap=True)
    console.print(f"{job['id']} [bold]{job['state']}[/bold], {job['progress']:.0f} %, created {job['created_at']}")
    for line in standing_lines(job):
        console.print(line, markup=False)
    if job.get("error"):
        console.print(f"{job['error']['class']}: {job['error']['message']}", markup=False)
    table = Table("stage", "state", "attempt", "wait", "run")
    for stage in job["stages"]:
        wait, ran = (seconds(stage[name]) for name in ("wait_seconds", "run_seconds"))
        table.add_row(stage["name"], stage["state"], str(stage["attempt"]), wait, ran)
    console.print(table)
    for asset in job["assets"]:
        console.print(f"{asset['name']}  {asset['bytes'] / 1e3:.0f} kB  {asset['media_type']}")


def standing_lines(job: dict[str, Any]) -> list[str]:
    """What is to be said of a job's place, times and treatment; nothing where there is nothing."""
    lines = [f"lane {job['lane'] or '-'}, tier {job['tier'] or '-'}, priority {job['priority'] or '-'}"]
    if job["paused"]:
        lines.append("paused: `meshyard jobs resume ID` lets it go on")
    if job["held_until"]:
        lines.append(f"held until {job['held_until']}")
    if job["retry_at"]:
        lines.append(f"the next attempt may start at {job['retry_at']}")
    if job["queue_position"] is not None:
        lines.append(f"place in the queue: {job['queue_position']}")
    if job["eta"] is not None:
        wait, total = job["eta"]["wait_seconds"], job["eta"]["total_seconds"]
        lines.append(f"starts in {seconds(wait['p50'])}, 9 of 10 such jobs within {seconds(wait['p90'])}")
        lines.append(f"done in {seconds(total['p50'])}, 9 of 10 within {seconds(total['p90'])}")
    lines += [f"under load: {text}" for text in job["adjustments"]]
    if job["retry_of"]:
        lines.append(f"repeats {job['retry_of']}")
    return lines


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
