"""The quickstart, block by block in its order, on one running stack."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.documents import ROOT, Shell, blocks
from tests.support.stack import RunningStack

DOCUMENT = ROOT / "docs" / "quickstart.md"
UP = "A stack that stays"
CLEAN = "Stop and clean"
ALL = blocks(DOCUMENT, "sh", "python")
BLOCKS = {heading: [block for block in ALL if block.heading == heading] for heading in [b.heading for b in ALL]}

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """`uv run meshyard up`, the first block of its section, in the background."""
    with RunningStack(tmp_path_factory.mktemp("quickstart") / "stack") as running:
        yield running


@pytest.fixture(scope="module")
def shell(stack: RunningStack) -> Shell:
    return Shell(stack.data_dir.with_name("clone"), {"MESHYARD_STACK_DIR": str(stack.data_dir)})


def _run(shell: Shell, text: str) -> str:
    done = shell.run(text)
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _jobs(stack: RunningStack) -> list[dict[str, Any]]:
    """The user's jobs, newest first, straight from the gateway: cheaper to ask often than a command."""
    state = stack.state()
    key = Path(state["key_file"]).read_text().strip()
    answer = httpx.get(f"{state['gateway']}/v1/jobs", headers={"Authorization": f"Bearer {key}"}, timeout=30.0)
    found: list[dict[str, Any]] = answer.raise_for_status().json()["jobs"]
    return found


def test_every_block_is_run_by_a_test_here() -> None:
    assert list(BLOCKS) == ["One model from one sentence", UP, "Over HTTP", "Straight from Kafka", CLEAN]
    (demo,) = BLOCKS["One model from one sentence"]  # the README's, which `demo_run` runs
    assert demo.text == blocks(ROOT / "README.md", "sh")[0].text
    assert BLOCKS[UP][0].text == "uv run meshyard up\n"


def test_the_single_commands(shell: Shell) -> None:
    _, commands = BLOCKS[UP]
    printed = {line: _run(shell, line) for line in commands.text.splitlines()}
    by_name = {line.split()[3]: text for line, text in printed.items()}
    assert "worker-0" in by_name["status"]
    assert "succeeded" in by_name["submit"]
    assert "succeeded" in by_name["jobs"]
    assert "jobs.events" in by_name["topics"]


def test_sql_tells_the_stages_of_the_job_before(stack: RunningStack, shell: Shell) -> None:
    line = next(line for line in BLOCKS[UP][1].text.splitlines() if " sql " in line)
    stack.until(lambda: all(stage in _run(shell, line) for stage in ("generate", "retopology", "texture")), 30.0)


def test_over_http(shell: Shell) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    (block,) = BLOCKS["Over HTTP"]
    printed = _run(shell, block.text)
    assert "event: job.succeeded" in printed
    assert (shell.folder / "lamp.glb").read_bytes()[:4] == b"glTF"
    submitted = json.loads((shell.folder / "job.json").read_text())["id"]
    first_request = block.text[: block.text.index("\nID=")]
    _run(shell, first_request)
    assert json.loads((shell.folder / "job.json").read_text())["id"] == submitted


def test_straight_from_kafka(stack: RunningStack, shell: Shell) -> None:
    program, commands = BLOCKS["Straight from Kafka"]
    assert (program.language, commands.language) == ("python", "sh")
    (shell.folder / "tower.py").write_text(program.text)
    before = len(_jobs(stack))
    _run(shell, commands.text)
    stack.until(lambda: len(_jobs(stack)) == before + 1)
    stack.until(lambda: _jobs(stack)[0]["state"] == "succeeded", 120.0)


def test_cleaning(tmp_path: Path) -> None:
    (block,) = BLOCKS[CLEAN]
    home = tmp_path / "home"
    shell = Shell(tmp_path / "clone", {"HOME": str(home)})
    for folder in (home / ".local/share/meshyard", home / ".cache/meshyard", shell.folder / "out"):
        folder.mkdir(parents=True)
    _run(shell, block.text)
    assert not (home / ".local/share/meshyard").exists()
    assert not (home / ".cache/meshyard").exists()
    assert not (shell.folder / "out").exists()
