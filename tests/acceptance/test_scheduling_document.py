"""Every command of docs/scheduling.md: the pictures are made again, the others are understood."""

import shlex
import shutil
from pathlib import Path

import pytest

from gateway.cli.__main__ import parser
from tests.support.documents import ROOT, Block, Shell, blocks

DOCUMENT = ROOT / "docs" / "scheduling.md"


@pytest.mark.parametrize("block", blocks(DOCUMENT, "sh"), ids=lambda block: block.heading)
def test_the_pictures_are_made_by_the_commands_beside_them(block: Block, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    shutil.copytree(ROOT / "docs" / "simulations", clone / "docs" / "simulations")
    (clone / "docs" / "images").mkdir()
    done = Shell(clone, {}).run(block.text)
    assert done.returncode == 0, done.stderr
    assert "Seconds until the first start" in done.stdout
    (made,) = (clone / "docs" / "images").iterdir()
    assert f"](images/{made.name})" in DOCUMENT.read_text()
    assert (ROOT / "docs" / "images" / made.name).exists()
    assert made.stat().st_size > 10_000


@pytest.mark.parametrize("line", [line for block in blocks(DOCUMENT, "text") for line in block.text.splitlines()])
def test_the_other_commands_are_understood(line: str) -> None:
    words = shlex.split(line)
    assert words[:3] == ["uv", "run", "meshyard"]
    parser().parse_args(words[3:])
