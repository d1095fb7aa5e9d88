"""`meshyard up`: the whole stack on this machine, until Ctrl-C."""

import argparse
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.cli.target import add_data_dir

if TYPE_CHECKING:
    from rich.console import Console

    from gateway.supervisor.stack import Stack

HELP = "run the whole stack on this machine until Ctrl-C"
MOST_SLOTS = 64
MOST_TASKS = 256


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_data_dir(parser)
    parser.add_argument("--slots", type=slot_count, default=1, metavar="N", help="workers with the built-in model (1)")
    parser.add_argument(
        "--synthetic-slots", type=slot_count, default=0, metavar="N", help="workers for load tests, without torch (0)"
    )
    parser.add_argument(
        "--capacity", type=capacity, default=1, metavar="N", help="tasks that a worker for load tests takes at once (1)"
    )
    parser.add_argument(
        "--policy",
        type=Path,
        metavar="FILE",
        help="the scheduling policy, a TOML file (default: MESHYARD_POLICY_FILE, else the built-in one)",
    )
    parser.add_argument("--timings", action="store_true", help="show when each role was ready and its memory")


def slot_count(text: str) -> int:
    """A number of slots. Raises ArgumentTypeError."""
    if not text.isascii() or not text.isdigit() or int(text) > MOST_SLOTS:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of slots; give 0 to {MOST_SLOTS}")
    return int(text)


def capacity(text: str) -> int:
    """A number of tasks. Raises ArgumentTypeError."""
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MOST_TASKS:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of tasks; give 1 to {MOST_TASKS}")
    return int(text)


def run(arguments: argparse.Namespace) -> int:
    """Start the stack, tell where it is, wait for a signal, drain."""
    from rich.console import Console

    from gateway.cli.errors import UsageError
    from gateway.logs import configure
    from gateway.supervisor.layout import StackSettings
    from gateway.supervisor.stack import Stack

    if arguments.slots + arguments.synthetic_slots > MOST_SLOTS:
        raise UsageError("--slots", f"more than {MOST_SLOTS} slots in all; give fewer")
    if arguments.policy is not None and not arguments.policy.is_file():
        raise UsageError("--policy", f"{arguments.policy} is no file; give a policy in TOML")
    settings = StackSettings.from_env(
        arguments.data_dir,
        slots=arguments.slots,
        synthetic_slots=arguments.synthetic_slots,
        capacity=arguments.capacity,
        policy_file=arguments.policy,
    )
    configure("console")
    console = Console(stderr=True, soft_wrap=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGTERM drains like Ctrl-C
    with Stack(settings, console) as stack:
        try:
            seconds = stack.start()
            console.print(f"Accepting at {stack.url} after {seconds:.1f} s; your key is in {stack.layout.key_file}")
            if stack.wait_warm():
                console.print(f"Every worker is ready after {stack.state().warm_seconds:.1f} s; Ctrl-C stops")
            if arguments.timings:
                print_timings(stack, console)
            while True:
                signal.pause()
        except KeyboardInterrupt:
            console.print("Stopping: what runs may end, again Ctrl-C kills")
    return 0


def print_timings(stack: "Stack", console: "Console") -> None:
    """A table: when each role was ready and what memory it takes."""
    from rich.table import Table

    from gateway.supervisor.state import role_memory_bytes

    state = stack.state()
    table = Table("role", "ready after", "memory", title="Timings")
    total = 0
    for role in state.roles:
        memory = role_memory_bytes(role)
        total += memory
        ready = "-" if role.ready_seconds is None else f"{role.ready_seconds:.1f} s"
        table.add_row(role.name, ready, f"{memory / 1e6:.0f} MB")
    accepting = f"{state.accepting_seconds or 0:.1f} s accepting, {state.warm_seconds or 0:.1f} s warm"
    table.add_row("all", accepting, f"{total / 1e6:.0f} MB", style="bold")
    console.print(table)
