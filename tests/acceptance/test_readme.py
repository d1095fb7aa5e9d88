"""The README's commands do what it says; the test run itself is one of them."""

from pathlib import Path

import pytest

from tests.acceptance.conftest import DEMO_SECONDS, DemoRun
from tests.support.documents import ROOT, Block, Shell, blocks

DEMO, TESTS, *OTHERS = blocks(ROOT / "README.md", "sh", "bash", "console")
STACK_AND_CACHE = (".local/share/meshyard/kafka", ".cache/meshyard/kafka")


@pytest.mark.timeout(DEMO_SECONDS + 100)
def test_the_first_command_is_the_demo_and_works(demo_run: DemoRun) -> None:
    assert DEMO.text == 'pip install uv && uv run meshyard demo "a tall crimson armchair"\n'
    assert demo_run.exit_code == 0, demo_run.stderr


def test_the_second_command_is_this_test_run_and_what_ci_calls() -> None:
    assert TESTS.text == "uv run pytest -n 2\n"
    assert '"${uv[@]}" run pytest -n 2\n' in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize("block", OTHERS, ids=lambda block: block.heading)
def test_the_other_blocks_run(block: Block, tmp_path: Path) -> None:
    home, clone = tmp_path / "home", tmp_path / "clone"
    shell = Shell(clone, {"HOME": str(home)})
    for folder in (home / STACK_AND_CACHE[0], home / STACK_AND_CACHE[1], clone / ".venv", clone / "out"):
        folder.mkdir(parents=True)
    done = shell.run(block.text)
    assert done.returncode == 0, done.stderr
    if block.text.startswith("rm "):
        assert not any((home / folder).exists() for folder in STACK_AND_CACHE)
        assert not (clone / ".venv").exists()
        assert not (clone / "out").exists()
    else:
        assert done.stdout
