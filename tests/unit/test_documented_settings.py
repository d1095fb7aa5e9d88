"""docs/settings.md lists every variable that the code reads, and none that it does not."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("schemas", "streams", "inference", "gateway", "analytics")
DOCUMENT = ROOT / "docs" / "settings.md"
# Variables whose default stands in the code as the fallback of a number or a text.
DEFAULT = re.compile(r'"(MESHYARD_[A-Z0-9_]+)", ("?)([\w.\-/]+)\2\)')


def _code() -> str:
    return "\n".join(path.read_text() for name in PACKAGES for path in sorted((ROOT / name).rglob("*.py")))


def _rows() -> dict[str, str]:
    """Variable -> its default as documented; a variable of two roles has the first row's."""
    rows = re.findall(r"^\| `(MESHYARD_\w+)` \| (.*?) \|", DOCUMENT.read_text(), re.MULTILINE)
    return {name: default.strip("`") for name, default in reversed(rows)}


def test_every_variable_that_the_code_reads_is_documented() -> None:
    read = set(re.findall(r'"(MESHYARD_[A-Z0-9_]*[A-Z0-9])"', _code()))
    assert read - set(_rows()) == set()


def test_nothing_is_documented_that_the_code_does_not_read() -> None:
    code = _code()
    assert [name for name in _rows() if f'"{name}"' not in code] == []


def test_documented_defaults_are_the_codes() -> None:
    found = {name: default.replace("_", "") for name, _, default in DEFAULT.findall(_code())}
    rows = _rows()
    checked = {name: rows[name].replace("_", "") for name in found if rows.get(name, "").isdigit()}
    assert len(checked) >= 10
    assert checked == {name: found[name] for name in checked}
