"""`meshyard bench BENCHMARK`: each in a module of its own, `bench_<name>`."""

import argparse
import importlib
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from gateway.cli.__main__ import Command

HELP = "measure: what a job costs, what a decision costs, how fair the order is"
BENCHMARKS: Final = ("noop", "scheduler", "fairness", "peers")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments: a parser for each benchmark."""
    benchmarks = parser.add_subparsers(dest="benchmark", required=True, parser_class=type(parser))
    for name in BENCHMARKS:
        benchmark = _benchmark(name)
        benchmark.add_arguments(benchmarks.add_parser(name, help=benchmark.HELP, description=benchmark.HELP))


def run(arguments: argparse.Namespace) -> int:
    """Run the benchmark; returns its exit code. Raises CommandError."""
    return _benchmark(arguments.benchmark).run(arguments)


def _benchmark(name: str) -> "Command":
    return cast("Command", importlib.import_module(f"gateway.cli.bench_{name}"))
