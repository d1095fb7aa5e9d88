"""`meshyard simulate --generate` and what the command line makes of its options."""

import json
import time
from pathlib import Path

import pytest

from gateway.cli.__main__ import main
from gateway.cli.errors import UsageError
from gateway.cli.simulate_inbox import moment

SPEC = """
jobs = 40
[pools.default]
slots = 2
[[users]]
name = "a"
count = 2
load = 1.5
lanes = { interactive = 0.5, standard = 0.5 }
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    file = tmp_path / "spec.toml"
    file.write_text(SPEC)
    return file


def test_a_specification_becomes_tables_figures_and_a_picture(
    spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    figures, picture = tmp_path / "figures.json", tmp_path / "run.svg"
    assert main(["simulate", "--generate", str(spec), "--json", str(figures), "--plot", str(picture)]) == 0
    told = json.loads(figures.read_text())
    assert told["ends"] == {"succeeded": 40}
    assert told["dispatches"] == 120
    assert set(told["waits"]) == {"all", "lane", "tier", "user"}
    assert set(told["waits"]["user"]) == {"a-0", "a-1"}
    assert 0 < told["utilisation"] <= 1
    assert picture.read_text().startswith("<?xml")
    out = capsys.readouterr().out
    for word in ("interactive", "standard", "pro", "a-1", "120 dispatches", "most queued at once"):
        assert word in out


def test_a_policy_file_changes_the_run(spec: Path, tmp_path: Path) -> None:
    policy, figures = tmp_path / "policy.toml", tmp_path / "figures.json"
    policy.write_text("[tiers.pro]\nmax_running = 1\n")
    waits = []
    for weights in ([], ["--weights", str(policy)]):
        assert main(["simulate", "--generate", str(spec), "--json", str(figures), *weights]) == 0
        waits.append(json.loads(figures.read_text())["waits"]["all"]["all"]["p50"])
    assert waits[0] != waits[1]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--generate", "/absent.toml"], "--generate"),
        (["--generate", "{bad}"], "pools"),
        (["--generate", "{spec}", "--from", "1h"], "--from"),
        (["--generate", "{spec}", "--slots", "3"], "--slots"),
        (["--generate", "{spec}", "--plot", "picture.jpeg"], "--plot"),
        (["--generate", "{spec}", "--plot", "/absent/picture.svg"], "--plot"),
        (["--generate", "{spec}", "--json", "/absent/figures.json"], "--json"),
        (["--generate", "{spec}", "--weights", "{bad}"], "policy"),
        (["--inbox", "main"], "--from"),
    ],
)
def test_what_cannot_be_used_is_one_line_with_code_2(
    options: list[str], named: str, spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text("jobs = 1\nusers = []\npools = {}\n")
    assert main(["simulate", *(option.format(spec=spec, bad=bad) for option in options)]) == 2
    error = capsys.readouterr().err
    assert named in error
    assert error.count("\n") == 1


def test_one_source_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["simulate"])
    assert ended.value.code == 2
    assert "--generate" in capsys.readouterr().err


def test_moments_are_ages_or_times() -> None:
    now = time.time()
    assert moment("--from", "90s", now) == round(1000 * (now - 90))
    assert moment("--from", "1.5h", now) == round(1000 * (now - 5400))
    assert moment("--from", "2026-11-22T19:00:00", now) == 1_795_374_000_000
    assert moment("--from", "2026-11-22T20:00:00+01:00", now) == 1_795_374_000_000
    with pytest.raises(UsageError, match="--to"):
        moment("--to", "tomorrow", now)
