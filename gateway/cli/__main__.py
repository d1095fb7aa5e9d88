"""`meshyard COMMAND ...`: finds the command, turns its errors into one line and an exit code."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Final, NoReturn, Protocol, cast

COMMANDS: Final = (
    "up",
    "status",
    "demo",
    "submit",
    "jobs",
    "sql",
    "load",
    "routing",
    "dlq",
    "topics",
    "shards",
    "setup",
    "bench",
    "simulate",
)
EXIT_INTERRUPTED: Final = 130
EXIT_USAGE: Final = 2


class Command(Protocol):
    """What a command's module has."""

    HELP: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's arguments."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Carry it out; returns the exit code. Raises CommandError."""
        ...


class OneLineParser(argparse.ArgumentParser):
    """Tells a mistake in one line that names the argument; the usage is one `--help` away."""

    def error(self, message: str) -> NoReturn:
        """Write the line and exit with code 2."""
        named = message.removeprefix("argument ")
        self.exit(EXIT_USAGE, f"{self.prog}: {named} (see `{self.prog} --help`)\n")


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    top = OneLineParser(prog="meshyard", description="Event streaming for AI 3D generation.")
    top.add_argument("--version", action="store_true", help="show the version and exit")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", parser_class=OneLineParser)
    for name in COMMANDS:
        command = _command(name)
        command.add_arguments(commands.add_parser(name, help=command.HELP, description=command.HELP))
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code."""
    top = parser()
    arguments = top.parse_args(argv)
    if arguments.version:
        from importlib.metadata import version

        sys.stdout.write(f"meshyard {version('meshyard')}\n")
        return 0
    if arguments.command is None:
        top.error("COMMAND: one of " + ", ".join(COMMANDS) + " is needed")
    try:
        return _command(arguments.command).run(arguments)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone, as in `meshyard jobs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        code = _exit_code(error)
        if code is None:
            raise
        sys.stderr.write(f"meshyard {arguments.command}: {' '.join(str(error).split())}\n")
        return code


def _command(name: str) -> Command:
    return cast(Command, importlib.import_module(f"gateway.cli.{name}"))


def _exit_code(error: Exception) -> int | None:
    """The exit code of an expected error; None for one that deserves its traceback.

    The modules of the errors are looked up only where they were imported: an error comes from nowhere else.
    """
    known: dict[str, dict[str, int | None]] = {
        "gateway.cli.errors": {"CommandError": None},
        "gateway.supervisor.errors": {"StackError": 1},
        "streams.local.errors": {"LocalBrokerError": 1},
        "streams.kafka.settings": {"SettingsError": EXIT_USAGE},
        "streams.kafka.admin": {"TopicMismatch": 1},
        "streams.policy.config": {"PolicyError": EXIT_USAGE},
    }
    for module_name, names in known.items():
        module = sys.modules.get(module_name)
        for name, code in names.items():
            if module is not None and isinstance(error, getattr(module, name)):
                return int(getattr(error, "exit_code", 1)) if code is None else code
    return None


if __name__ == "__main__":
    sys.exit(main())
