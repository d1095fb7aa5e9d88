"""Runs the shell blocks of the documents as they stand, in the environment that is already set up.

`pip install uv` has been done here, and `uv run` would set the environment up again: two small scripts on PATH stand
for them, so that the blocks need no change.
"""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block of a document. heading: the last one above it."""

    heading: str
    language: str
    text: str


def blocks(document: Path, *languages: str) -> list[Block]:
    """The fenced blocks of some languages, in order."""
    text = document.read_text()
    found = []
    for match in _BLOCK.finditer(text):
        if match[1] in languages:
            headings = re.findall(r"^#+ (.+)$", _BLOCK.sub("", text[: match.start()]), re.MULTILINE)
            found.append(Block(heading=headings[-1], language=match[1], text=match[2]))
    return found


class Shell:
    """Runs blocks in a directory of its own. Variables of one block are not kept for the next."""

    def __init__(self, folder: Path, own: Mapping[str, str]) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        tools = folder / ".tools"
        tools.mkdir(exist_ok=True)
        venv = Path(sys.executable).parent
        _script(tools / "uv", f'[ "$1" = run ] || exit 64\nshift\nPATH="{venv}:$PATH" exec "$@"\n')
        _script(tools / "pip", '[ "$1 $2" = "install uv" ]\n')
        # COLUMNS: wide enough for tables; the rest is this process's environment, already scrubbed of MESHYARD_*.
        path = f"{tools}{os.pathsep}{os.environ['PATH']}"
        self.environment = {**os.environ, "PATH": path, "COLUMNS": "200", **own}

    def run(self, text: str, timeout_seconds: float = 300.0) -> subprocess.CompletedProcess[str]:
        """Run a block in bash; it ends at the first command that fails."""
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
        )


def _script(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\nset -eu\n{body}")
    path.chmod(0o755)
