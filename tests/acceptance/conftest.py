"""What the acceptance tests share: one run of the demo, as the README prints it."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.documents import ROOT, Shell, blocks

DEMO_SECONDS = 500.0


@dataclass(frozen=True, kw_only=True)
class DemoRun:
    """What `meshyard demo "a tall crimson armchair"` did.

    out: where it saved its files; stack_dir: the data directory of the stack that it started.
    """

    exit_code: int
    stdout: str
    stderr: str
    out: Path
    stack_dir: Path

    @property
    def glb(self) -> Path:
        """The model's file."""
        return self.out / "a-tall-crimson-armchair.glb"

    @property
    def preview(self) -> Path:
        """The preview's file."""
        return self.out / "a-tall-crimson-armchair.png"


@pytest.fixture(scope="session")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> DemoRun:
    """The README's first block, run once for all tests; it starts a stack of its own and stops it."""
    folder = tmp_path_factory.mktemp("demo")
    stack_dir = folder / "stack"
    shell = Shell(folder / "clone", {"MESHYARD_STACK_DIR": str(stack_dir)})
    done = shell.run(blocks(ROOT / "README.md", "sh")[0].text, DEMO_SECONDS)
    return DemoRun(
        exit_code=done.returncode,
        stdout=done.stdout,
        stderr=done.stderr,
        out=shell.folder / "out",
        stack_dir=stack_dir,
    )
