"""What the peers need: their drivers from the source repository, a Redis server, Python packages of their own."""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

INSTALL_SECONDS: Final = 600.0
REPOSITORY: Final = Path(__file__).parents[2]
DRIVERS: Final = REPOSITORY / "tests" / "benchmarks" / "peers"


class PeersMissing(RuntimeError):
    """Something that the peers need is not there. what: its name; remedy: how to get it."""

    def __init__(self, what: str, remedy: str) -> None:
        self.what = what
        self.remedy = remedy
        super().__init__(f"{what}: {remedy}")


def redis_server() -> str:
    """The server's program. Raises PeersMissing."""
    found = shutil.which("redis-server")
    if found is None:
        install = "brew install redis" if sys.platform == "darwin" else "sudo apt-get install redis-server"
        raise PeersMissing("redis-server", f"not found; install it with `{install}`")
    return found


def requirements() -> Path:
    """The pins of the peers. Raises PeersMissing where the drivers are not, as in an installed wheel."""
    file = DRIVERS / "requirements.txt"
    if not file.is_file():
        raise PeersMissing("tests/benchmarks/peers", "not found; run this in a checkout of the source repository")
    return file


def peers_environment(cache_dir: Path, tell: Callable[[str], None]) -> Path:
    """The bin folder of an environment with the pinned peers, made at the first call and kept in `cache_dir`.

    The product's own environment stays as it is: some of their requirements contradict ours. Raises PeersMissing.
    """
    pins = requirements()
    digest = hashlib.sha256(pins.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = cache_dir / f"peers-{digest}"
    done = folder / "complete"
    if not done.is_file():
        tell("Installing the peers")
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        for command in _install(folder, pins):
            _run(command)
        done.touch()
    return folder / "bin"


def _install(folder: Path, pins: Path) -> list[list[str]]:
    uv = shutil.which("uv")
    python = str(folder / "bin" / "python")
    if uv is not None:
        make = [uv, "venv", "--quiet", "--python", sys.executable, str(folder)]
        return [make, [uv, "pip", "install", "--quiet", "--python", python, "-r", str(pins)]]
    make = [sys.executable, "-m", "venv", str(folder)]
    return [make, [python, "-m", "pip", "install", "--quiet", "-r", str(pins)]]


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PeersMissing("the peers' packages", f"`{' '.join(command)}` failed: {error}") from error
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise PeersMissing("the peers' packages", f"`{' '.join(command)}` failed: {said}")
