"""Where commands put figures and pictures: checked before the work begins."""

import argparse
import json
from pathlib import Path
from typing import Any

from gateway.cli.errors import UsageError

PICTURES = (".png", ".svg")


def add_json(parser: argparse.ArgumentParser) -> None:
    """`--json FILE`."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")


def add_plot(parser: argparse.ArgumentParser) -> None:
    """`--plot FILE`."""
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw them there, too: a .png or .svg file")


def check_json(file: Path | None) -> None:
    """Raises UsageError when it cannot be written."""
    _check_folder("--json", file)


def check_plot(file: Path | None) -> None:
    """Raises UsageError when it cannot be drawn."""
    _check_folder("--plot", file)
    if file is not None and file.suffix.lower() not in PICTURES:
        raise UsageError("--plot", f"{file.name} ends neither in .png nor in .svg")


def write_json(file: Path | None, figures: dict[str, Any]) -> None:
    """Writes figures when a file was named."""
    if file is not None:
        file.write_text(json.dumps(figures, indent=1) + "\n")


def _check_folder(option: str, file: Path | None) -> None:
    if file is not None and not file.absolute().parent.is_dir():
        raise UsageError(option, f"{file.parent} is no directory; name a file in one that exists")
