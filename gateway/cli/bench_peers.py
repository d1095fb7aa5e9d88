"""`meshyard bench peers`: Meshyard beside Celery and Dramatiq on this machine, the same job, in one run."""

import argparse
import json
import os
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gateway.cli.bench_noop import job_count, slot_count, stack_for
from gateway.cli.errors import CommandError, UsageError
from gateway.cli.up import capacity

if TYPE_CHECKING:
    from rich.console import Console

HELP = "the no-op job beside Celery + Redis and Dramatiq + Redis: jobs per CPU-second, and latency at low load"
NAMES: Final = ("celery", "dramatiq")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--jobs", type=job_count, default=6000, metavar="N", help="jobs sent at once (6000)")
    parser.add_argument(
        "--low-seconds", type=job_count, default=15, metavar="N", help="how long to send 20 jobs/s (15)"
    )
    parser.add_argument("--slots", type=slot_count, default=2, metavar="N", help="Meshyard's workers (2)")
    parser.add_argument(
        "--capacity", type=capacity, default=256, metavar="N", help="tasks that each of them takes at once (256)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    parser.set_defaults(data_dir=None)


def run(arguments: argparse.Namespace) -> int:
    """Measure all, print a table, and with --json write; exit code 1 when a job was lost, 2 when something to measure
    against is missing."""
    from rich.console import Console

    from gateway.bench.noop import BenchFailed
    from gateway.bench.peers import PEERS, PeerBenchmark
    from gateway.bench.peers_env import PeersMissing, peers_environment, redis_server
    from streams.local.settings import default_cache_dir

    file: Path | None = arguments.json
    if file is not None and not file.absolute().parent.is_dir():
        raise UsageError("--json", f"{file.parent} is no directory; name a file in one that exists")
    console = Console(stderr=True, soft_wrap=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGTERM ends everything in order, like Ctrl-C
    measured: dict[str, Any] = {}
    try:
        server = redis_server()
        with console.status("Starting") as line:
            programs = peers_environment(default_cache_dir(os.environ), line.update)
        measured |= _meshyard(arguments, console)
        with console.status("Starting") as line:
            for peer in PEERS:
                line.update(peer.title)
                with PeerBenchmark(peer, server, programs) as benchmark:
                    measured[peer.name] = benchmark.measure(arguments.jobs, arguments.low_seconds)
    except PeersMissing as error:
        raise UsageError(error.what, error.remedy) from error
    except BenchFailed as error:
        raise CommandError(str(error)) from error
    return report(measured, file)


def report(measured: dict[str, Any], file: Path | None) -> int:
    """Print how all compare, and write it. Raises CommandError when a job did not end well."""
    from gateway.bench.peers import comparison

    figures = comparison(measured)
    _print(figures)
    if file is not None:
        file.write_text(json.dumps(figures, indent=1) + "\n")
    bad = {name: one["lost"] for name, one in measured.items() if one["lost"] or one.get("not_succeeded")}
    if bad:
        raise CommandError(f"jobs that did not end well: {bad}")
    return 0


def _meshyard(arguments: argparse.Namespace, console: "Console") -> dict[str, Any]:
    """Both ways in, on one stack: written to Kafka, and over HTTP."""
    from gateway.bench.noop import NoopBenchmark

    measured = {}
    with ExitStack() as until_done:
        stack = stack_for(arguments, console, until_done)
        for name, direct in (("meshyard", True), ("meshyard_http", False)):
            with (
                NoopBenchmark(stack, timeout_seconds=300.0, direct=direct) as benchmark,
                console.status("Starting") as line,
            ):
                measured[name] = benchmark.measure(arguments.jobs, arguments.low_seconds, line.update)
    return measured


def _print(figures: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("", "jobs/CPU-s", "jobs/s", "p50", "p95", "p99", "other cores", title="No-op jobs of three stages")
    rows = [figures["meshyard"] | {"title": "Meshyard, requests on Kafka"}]
    rows += [figures["meshyard_http"] | {"title": "Meshyard, requests over HTTP"}, *figures["peers"].values()]
    for one in rows:
        times = (_milliseconds(one[key]) for key in ("p50_ms", "p95_ms", "p99_ms"))
        table.add_row(one["title"], str(one["jobs_per_cpu_s"]), str(one["jobs_per_s"]), *times, str(one["other_cores"]))
    console = Console(soft_wrap=True)
    console.print(table)
    console.print(
        f"Against Celery: {figures['cpu_ratio_to_celery']} times the jobs per CPU-second, "
        f"{figures['p50_ratio_to_celery']} times the p50 at 20 jobs/s"
    )


def _milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} ms"
