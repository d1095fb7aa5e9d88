"""What docs/overload-and-routing.md says is so: its policy is the built-in one, its commands are understood."""

import shlex
from pathlib import Path

import pytest

from gateway.cli.__main__ import parser
from streams.policy.config import DEFAULT, load_policy
from tests.support.documents import ROOT, blocks

PAGE = Path(ROOT / "docs" / "overload-and-routing.md")
COMMANDS = [
    line.partition("#")[0].strip() for block in blocks(PAGE, "sh") for line in block.text.splitlines() if line.strip()
]


def test_the_policy_shown_is_the_default() -> None:
    [shown] = blocks(PAGE, "toml")
    assert load_policy(shown.text) == DEFAULT


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_understood(command: str) -> None:
    program, *argv = shlex.split(command)
    assert program == "meshyard"
    assert parser().parse_args(argv).command == argv[0]
