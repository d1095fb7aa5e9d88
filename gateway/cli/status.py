"""`meshyard status`: what `stack.json` says, and what is true of it."""

import argparse
import json
import sys

from gateway.cli.errors import CommandError
from gateway.cli.target import add_data_dir, data_dir_of

HELP = "show the roles of the local stack"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_data_dir(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Show the stack; exit code 1 when none runs."""
    import msgspec

    from gateway.supervisor import state

    data_dir = data_dir_of(arguments)
    stack = state.running(data_dir)
    if stack is None:
        raise CommandError(f"no stack runs on {data_dir}; start one with `meshyard up`")
    memory = {role.name: state.role_memory_bytes(role) for role in stack.roles}
    if arguments.json:
        record = msgspec.to_builtins(stack)
        for role in record["roles"]:
            role["memory_bytes"] = memory[role["name"]]
        json.dump(record, sys.stdout, indent=1)
        sys.stdout.write("\n")
        return 0
    from rich.console import Console
    from rich.table import Table

    console = Console(soft_wrap=True)
    console.print(
        f"[bold]{stack.state}[/bold] at {stack.gateway} (Kafka {stack.kafka or 'not yet'}), process {stack.pid}"
    )
    table = Table("role", "state", "pid", "endpoint", "restarts", "ready after", "memory")
    for role in stack.roles:
        table.add_row(
            role.name,
            role.state,
            str(role.pid or "-"),
            role.endpoint or "-",
            str(role.restarts),
            "-" if role.ready_seconds is None else f"{role.ready_seconds:.1f} s",
            f"{memory[role.name] / 1e6:.0f} MB",
        )
    console.print(table)
    console.print(f"key: {stack.key_file}\nlogs: {data_dir / 'logs'}")
    return 0
