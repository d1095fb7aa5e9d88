"""`meshyard bench fairness`: how fair a live stack is, in the terms of the literature."""

import argparse
import signal
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from gateway.cli.errors import CommandError, UsageError
from gateway.cli.output import add_json, add_plot, check_json, check_plot, write_json

if TYPE_CHECKING:
    from rich.console import Console

    from gateway.bench.fairness import FairnessBenchmark
    from gateway.bench.served import Served
    from streams.kafka.settings import KafkaSettings

HELP = "a live run with 2 to 50 users, weights 1:10, costs 1:20, one flooding: lag, Jain's index, waits, throughput"
WORKERS: Final = 2
TASKS_AT_ONCE: Final = 8
POLICY: Final = """\
# Synthetic slots have no model to keep warm: what affinity costs in fairness would buy nothing.
affinity_gpu_seconds = 0.0
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--policy", type=Path, metavar="FILE", help="measure this policy (default: the built-in one, affinity off)"
    )
    add_json(parser)
    add_plot(parser)


def run(arguments: argparse.Namespace) -> int:
    """Measure on a stack of its own, print a table, and write what was asked for."""
    from rich.console import Console

    from gateway.bench.fairness import FairnessBenchmark, FairnessFailed

    check_json(arguments.json)
    check_plot(arguments.plot)
    console = Console(stderr=True, soft_wrap=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGTERM ends everything in order, like Ctrl-C
    began = time.monotonic()
    with ExitStack() as until_done:
        kafka = _stack(arguments.policy, console, until_done)
        try:
            with FairnessBenchmark(kafka, WORKERS * TASKS_AT_ONCE) as benchmark, console.status("Starting") as line:
                figures, served = benchmark.measure(line.update)
                figures["policy"] = "default, affinity off" if arguments.policy is None else arguments.policy.name
                if arguments.plot is not None:
                    _plot(benchmark, served, arguments.plot)
        except FairnessFailed as error:
            raise CommandError(str(error)) from error
    figures["seconds"] = round(time.monotonic() - began, 1)
    _print(figures)
    write_json(arguments.json, figures)
    return 0


def _stack(policy: Path | None, console: "Console", until_done: ExitStack) -> "KafkaSettings":
    """A stack of its own with synthetic slots only."""
    from gateway.cli.logfile import log_to_file
    from gateway.cli.simulate import read_file
    from gateway.supervisor.layout import StackSettings
    from gateway.supervisor.stack import Stack
    from streams.kafka.settings import KafkaSettings
    from streams.policy.config import PolicyError, load_policy

    root = Path(until_done.enter_context(TemporaryDirectory(prefix="meshyard-bench-")))
    text = POLICY if policy is None else read_file("--policy", policy)
    try:
        load_policy(text)
    except PolicyError as error:
        raise UsageError(f"--policy: {error.field}", str(error).partition(": ")[2]) from None
    chosen = root / "policy.toml"
    chosen.write_text(text)
    settings = StackSettings.from_env(
        root, slots=0, synthetic_slots=WORKERS, capacity=TASKS_AT_ONCE, policy_file=chosen
    )
    until_done.enter_context(log_to_file(root / "logs" / "supervisor.log"))
    stack = until_done.enter_context(Stack(settings, console))
    with console.status("Starting a stack"):
        stack.start()
        if not stack.wait_warm():
            raise CommandError("the workers did not start")
    bootstrap = stack.state().kafka
    assert bootstrap is not None
    return KafkaSettings(bootstrap=bootstrap)


def _plot(benchmark: "FairnessBenchmark", served: "Mapping[str, Served]", file: Path) -> None:
    from gateway.bench.fairness import neighbour_waits
    from gateway.bench.served import normalised_service
    from streams.simulate.plots import plot_fairness

    plot_fairness(
        normalised_service(served["shares-10"], benchmark.weights("shares-10")),
        {"alone": neighbour_waits(served["alone"]), "beside the flood": neighbour_waits(served["flooded"])},
        file,
    )


def _print(figures: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    alone, flooded = figures["neighbours_alone"], figures["neighbours_flooded"]
    rows = [
        ("lag / SFQ(D) bound, worst of all pairs and intervals", f"{figures['lag_over_bound']:.3f}", "<= 0.35"),
        ("Jain's index of service / weight, the least", f"{figures['jain']:.4f}", ">= 0.997"),
        *((f"  {name}", _share(share), "") for name, share in figures["shares"].items()),
        ("  two users of whom nothing is known", f"lag {figures['lag_over_bound_of_strangers']:.3f}", "<= 1"),
        ("idle user's first job beside 50 who flood", f"{figures['rounds_to_first_start']:.2f} rounds", "<= 1"),
        ("neighbours' wait p50 / p99, alone", _waits(alone), ""),
        ("  beside one who floods", _waits(flooded), ""),
        ("throughput / first come, first served", f"{figures['fcfs_ratio']:.3f}", ">= 0.98"),
    ]
    table = Table("", "figure", "goal", title=f"Fairness of {figures['in_flight']} tasks at once")
    for row in rows:
        table.add_row(*row)
    Console(soft_wrap=True).print(table)


def _share(share: dict[str, Any]) -> str:
    jain = "-" if share["jain"] is None else f"{share['jain']:.4f}"
    return f"lag {share['lag_over_bound']:.3f}, Jain {jain}, {share['together_seconds']:.0f} s"


def _waits(neighbours: dict[str, float]) -> str:
    return f"{1000 * neighbours['p50']:.0f} / {1000 * neighbours['p99']:.0f} ms"
