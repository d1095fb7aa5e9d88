"""`meshyard bench noop`: what a job costs when its work costs nothing, on a stack of its own or on one that runs."""

import argparse
import json
import signal
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from gateway.cli.errors import CommandError, UsageError
from gateway.cli.up import MOST_SLOTS, capacity

if TYPE_CHECKING:
    from rich.console import Console

    from gateway.supervisor.state import StackState

HELP = "jobs of three stages that do nothing: jobs per CPU-second, and latency at low load"
MOST_JOBS: Final = 1_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--jobs", type=job_count, default=2000, metavar="N", help="jobs sent at once (2000)")
    parser.add_argument(
        "--low-seconds", type=job_count, default=15, metavar="N", help="how long to send 20 jobs/s (15)"
    )
    parser.add_argument("--slots", type=slot_count, default=4, metavar="N", help="workers of the stack it starts (4)")
    parser.add_argument(
        "--capacity", type=capacity, default=1, metavar="N", help="tasks that each of them takes at once (1)"
    )
    parser.add_argument(
        "--direct", action="store_true", help="write requests to Kafka, as upstream products do, instead of over HTTP"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    parser.add_argument(
        "--data-dir", type=Path, metavar="DIR", help="measure the stack that runs on DIR (default: one of its own)"
    )


def job_count(text: str) -> int:
    """A number of jobs. Raises ArgumentTypeError."""
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MOST_JOBS:
        raise argparse.ArgumentTypeError(f"{text!r}; give a number from 1 to {MOST_JOBS}")
    return int(text)


def slot_count(text: str) -> int:
    """A number of slots. Raises ArgumentTypeError."""
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MOST_SLOTS:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of slots; give 1 to {MOST_SLOTS}")
    return int(text)


def run(arguments: argparse.Namespace) -> int:
    """Measure, print a table, and with --json write; exit code 1 when a job was lost or did not succeed."""
    from rich.console import Console

    from gateway.bench.noop import BenchFailed, NoopBenchmark

    file: Path | None = arguments.json
    if file is not None and not file.absolute().parent.is_dir():
        raise UsageError("--json", f"{file.parent} is no directory; name a file in one that exists")
    console = Console(stderr=True, soft_wrap=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGTERM ends everything in order, like Ctrl-C
    with ExitStack() as until_done:
        stack = stack_for(arguments, console, until_done)
        try:
            with NoopBenchmark(stack, direct=arguments.direct) as benchmark, console.status("Starting") as line:
                figures = benchmark.measure(arguments.jobs, arguments.low_seconds, line.update)
        except BenchFailed as error:
            raise CommandError(str(error)) from error
    _print(figures)
    if file is not None:
        file.write_text(json.dumps(figures, indent=1) + "\n")
    bad = {name: figures[name] for name in ("lost", "not_succeeded") if figures[name]}
    if bad:
        raise CommandError(f"jobs that did not end well: {bad}")
    return 0


def stack_for(arguments: argparse.Namespace, console: "Console", until_done: ExitStack) -> "StackState":
    """The stack of --data-dir; without one, a stack of its own with synthetic slots only."""
    from gateway.supervisor.state import running

    if arguments.data_dir is not None:
        found = running(arguments.data_dir.expanduser().absolute())
        if found is None:
            raise CommandError(f"no stack runs on {arguments.data_dir}; leave --data-dir out to have one started")
        if found.warm_seconds is None:
            raise CommandError(f"the stack on {arguments.data_dir} is not ready; wait until its workers are")
        return found
    from gateway.cli.logfile import log_to_file
    from gateway.supervisor.layout import StackSettings
    from gateway.supervisor.stack import Stack

    root = Path(until_done.enter_context(TemporaryDirectory(prefix="meshyard-bench-")))
    settings = StackSettings.from_env(root, slots=0, synthetic_slots=arguments.slots, capacity=arguments.capacity)
    until_done.enter_context(log_to_file(root / "logs" / "supervisor.log"))
    stack = until_done.enter_context(Stack(settings, console))
    with console.status("Starting a stack"):
        stack.start()
        if not stack.wait_warm():
            raise CommandError("the workers did not start")
    return stack.state()


def _print(figures: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("", "figure", title=f"{figures['jobs']} no-op jobs of three stages on {figures['slots']} slots")
    table.add_row("jobs per CPU-second", str(figures["jobs_per_cpu_s"]))
    table.add_row("jobs/s at once", str(figures["jobs_per_s"]))
    table.add_row(
        f"p50 / p95 / p99 at {figures['low']['rate']:g} jobs/s",
        " / ".join(
            "-" if figures[name] is None else f"{figures[name]:.0f} ms" for name in ("p50_ms", "p95_ms", "p99_ms")
        ),
    )
    for role, milliseconds in figures["cpu_ms_per_job"].items():
        table.add_row(f"CPU a job, {role}", f"{milliseconds:.2f} ms")
    table.add_row("lost, repeated", f"{figures['lost']}, {figures['repeated']}")
    table.add_row("cores that others used meanwhile", str(figures["other_cores"]))
    Console(soft_wrap=True).print(table)


def _milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} ms"
