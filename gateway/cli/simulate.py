"""`meshyard simulate`: made traffic, or a recorded inbox, through the very code that schedules."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.cli.errors import CommandError, UsageError
from gateway.cli.output import add_json, add_plot, check_json, check_plot, write_json
from gateway.cli.target import add_data_dir

if TYPE_CHECKING:
    from streams.simulate.generated import Run

HELP = "run made traffic, or a recorded inbox, through the scheduler's code"
USERS_SHOWN = 10
# Jain's index of a shorter part of a run says more of the tasks' grain than of the order.
TELLING_SHARE = 0.1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--generate", type=Path, metavar="SPEC", help="a TOML file: users, slots, service times")
    source.add_argument("--inbox", metavar="DOMAIN", help="the recorded inbox of a domain")
    parser.add_argument("--from", dest="since", metavar="T", help="with --inbox: a time, or an age: 90s, 10m, 2h")
    parser.add_argument("--to", dest="until", metavar="T", help="with --inbox: the same (default: now)")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="another policy (TOML, as MESHYARD_POLICY_FILE)")
    parser.add_argument("--slots", type=int, metavar="N", help="with --inbox: so many slots instead of the recorded")
    add_plot(parser)
    add_json(parser)
    add_data_dir(parser)


def run(arguments: argparse.Namespace) -> int:
    """Simulate, print tables; exit code 1 when a replay differs from what was recorded."""
    check_plot(arguments.plot)
    check_json(arguments.json)
    if arguments.slots is not None and arguments.slots < 1:
        raise UsageError("--slots", f"{arguments.slots} is too small; give at least 1")
    if arguments.generate is not None:
        for option, value in (("--from", arguments.since), ("--to", arguments.until), ("--slots", arguments.slots)):
            if value is not None:
                raise UsageError(option, "goes with --inbox; a specification says it itself")
        return _generate(arguments)
    if arguments.since is None:
        raise UsageError("--from", "not given; say where the replay begins, for example --from 1h")
    from gateway.cli.simulate_inbox import replay_inbox

    return replay_inbox(arguments)


def _generate(arguments: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from streams.simulate import generated
    from streams.simulate.spec import SpecError, load_spec, with_policy

    text = read_file("--generate", arguments.generate)
    try:
        spec = load_spec(text)
        if arguments.weights is not None:
            spec = with_policy(spec, read_file("--weights", arguments.weights))
    except SpecError as error:
        raise UsageError(f"{arguments.generate}: {error.field}", str(error).partition(": ")[2]) from None
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("Simulating", total=spec.jobs or spec.duration_seconds)

        def tell(at: generated.Progress) -> None:
            done = at.jobs if at.of_jobs is not None else at.simulated_seconds
            words = f"{at.simulated_seconds:,.0f} s simulated, {at.jobs:,} jobs, {at.queued:,} wait"
            bar.update(task, completed=done, description=words)

        result = generated.simulate(spec, tell)
    _print(result)
    write_json(arguments.json, _figures(result))
    if arguments.plot is not None:
        from streams.simulate.plots import plot_run

        plot_run(result.ledger, spec.capacity, arguments.plot, f"{arguments.generate.name}, seed {spec.seed}")
    if result.left:
        raise CommandError(f"{result.left} jobs never ended: no slot can run them")
    return 0


def read_file(option: str, file: Path) -> str:
    """A file's text. Raises UsageError."""
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(option, f"{file}: {getattr(error, 'strerror', None) or error}") from None


def _print(run: "Run") -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(soft_wrap=True)
    console.print(
        waits_table(
            "Seconds until the first start",
            {"": {dimension: run.ledger.waits(dimension) for dimension in ("all", "lane", "tier", "user")}},
        )
    )
    table = Table("", "figure")
    table.add_row("jobs", ", ".join(f"{count:,} {how}" for how, count in sorted(run.ledger.ends.items())))
    table.add_row("slots", f"{run.spec.capacity:,}, {100 * run.utilisation:.1f} % of their time busy")
    for lane, fairness in run.fairness.items():
        words = f"lag {fairness.lag_over_bound:.3f} of the SFQ(D) bound"
        if fairness.jain is not None and fairness.together_seconds > TELLING_SHARE * run.simulated_seconds:
            words += f", Jain {fairness.jain:.4f} over {fairness.together_seconds:,.0f} s in which all had a backlog"
        table.add_row(f"fairness, lane {lane}", words)
    table.add_row("decisions", f"{run.dispatches:,} dispatches in {run.records:,} records")
    table.add_row(
        "simulated", f"{run.simulated_seconds:,.0f} s in {run.wall_seconds:,.1f} s, {run.cpu_seconds:,.1f} s of CPU"
    )
    per_job = f", {run.bytes_per_queued_job:,.0f} bytes each" if run.bytes_per_queued_job and run.peak_queued else ""
    table.add_row("most queued at once", f"{run.peak_queued:,} jobs{per_job}, {run.peak_bytes / 2**20:,.0f} MiB then")
    console.print(table)


def waits_table(title: str, sides: dict[str, dict[str, dict[str, Any]]]) -> Any:
    """Waits of one or more sides (recorded, counterfactual) by dimension and group; of users those with most jobs."""
    from rich.table import Table

    table = Table("by", "group", *([""] if len(sides) > 1 else []), "jobs", "started", title=title)
    for name in ("p50", "p90", "p99", "total p50", "total p90", "GPU-s"):
        table.add_column(name, justify="right")
    for dimension in next(iter(sides.values())):
        found = {name: waits for side in sides.values() for name, waits in side[dimension].items()}
        names = sorted(found, key=lambda name: -found[name].jobs)[:USERS_SHOWN] if dimension == "user" else list(found)
        table.add_section()
        for name in names:
            for side, dimensions in sides.items():
                waits = dimensions[dimension].get(name)
                if waits is None:
                    continue
                label = "" if dimension == "all" else name
                times = (waits.p50, waits.p90, waits.p99, waits.total_p50, waits.total_p90)
                table.add_row(
                    dimension,
                    label,
                    *([side] if len(sides) > 1 else []),
                    f"{waits.jobs:,}",
                    f"{waits.started:,}",
                    *("-" if t is None else f"{t:,.2f}" for t in times),
                    f"{waits.gpu_seconds:,.0f}",
                )
    return table


def _figures(run: "Run") -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "jobs": len(run.ledger),
        "ends": run.ledger.ends,
        "left": run.left,
        "waits": {
            dimension: {name: asdict(waits) for name, waits in run.ledger.waits(dimension).items()}
            for dimension in ("all", "lane", "tier", "user")
        },
        "fairness": {lane: asdict(fairness) for lane, fairness in run.fairness.items()},
        "utilisation": run.utilisation,
        "simulated_seconds": run.simulated_seconds,
        "wall_seconds": run.wall_seconds,
        "cpu_seconds": run.cpu_seconds,
        "dispatches": run.dispatches,
        "records": run.records,
        "peak_queued": run.peak_queued,
        "peak_bytes": run.peak_bytes,
        "bytes_per_queued_job": run.bytes_per_queued_job,
    }
