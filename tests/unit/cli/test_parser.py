"""What the command line does with what it is given."""

import subprocess
import sys
from pathlib import Path

import pytest

from gateway.cli.__main__ import COMMANDS, main, parser
from gateway.cli.errors import UsageError
from gateway.cli.submit import request_of

HEAVY = ("torch", "faust", "confluent_kafka", "httpx", "rich", "numpy", "psutil", "chdb", "starlette", "msgspec")


def test_help_imports_nothing_heavy() -> None:
    script = "import sys\nfrom gateway.cli.__main__ import parser\nparser().format_help()\nprint(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not set(HEAVY) & set(loaded)


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    for command in COMMANDS:
        with pytest.raises(SystemExit) as ended:
            main([command, "--help"])
        assert ended.value.code == 0
        assert command in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["up", "--slots", "many"], "--slots"),
        (["up", "--synthetic-slots", "65"], "--synthetic-slots"),
        (["demo", "  "], "PROMPT"),
        (["demo", "x" * 2001], "PROMPT"),
        (["demo", "chair", "--seed", "-1"], "--seed"),
        (["submit", "chair", "--quality", "best"], "--quality"),
        (["jobs", "--limit", "0"], "--limit"),
        (["topics", "drop"], "action"),
        (["bench", "noop", "--jobs", "0"], "--jobs"),
        (["bench", "everything"], "benchmark"),
        (["sql"], "QUERY"),
        ([], "COMMAND"),
        (["fly"], "COMMAND"),
    ],
)
def test_bad_input_is_one_line_that_names_the_field(
    argv: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert named in error
    assert "--help" in error


@pytest.mark.parametrize(
    ("argv", "code", "named"),
    [
        (["status"], 1, "meshyard up"),
        (["jobs"], 1, "--url"),
        (["jobs", "--cancel"], 2, "ID"),
        (["submit", "chair", "--parameter", "seconds"], 2, "NAME=VALUE"),
        (["submit", "chair", "--url", "http://127.0.0.1:1"], 2, "--key-file"),
        (["submit", "chair", "--url", "ftp://host", "--key-file", "{key}"], 2, "--url"),
        (["submit", "chair", "--url", "http://127.0.0.1:1", "--key-file", "/absent"], 2, "--key-file"),
        (["submit", "chair", "--url", "http://127.0.0.1:1", "--key-file", "{key}"], 1, "does not answer"),
        (["sql", "SELECT 1"], 1, "MESHYARD_CLICKHOUSE_URL"),
        (["bench", "noop"], 1, "--data-dir"),
        (["bench", "noop", "--json", "/absent/figures.json"], 2, "--json"),
        (["setup"], 2, "MESHYARD_KAFKA_BOOTSTRAP"),
        (["topics", "list"], 1, "MESHYARD_KAFKA_BOOTSTRAP"),
        (["demo", "chair", "--out", "/dev/null/out"], 2, "--out"),
        (["up", "--slots", "60", "--synthetic-slots", "60"], 2, "--slots"),
    ],
)
def test_what_cannot_be_done_is_one_line_with_its_remedy(
    argv: list[str], code: int, named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "key").write_text("my_00000000_key\n")
    given = [text.format(key=tmp_path / "key") for text in argv]
    assert main([*given, "--data-dir", str(tmp_path / "stack")]) == code
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith(f"meshyard {argv[0]}: ")
    assert named in error


@pytest.mark.parametrize("port", ["0", "70000", "http"])
def test_a_wrong_variable_is_named(
    port: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MESHYARD_GATEWAY_PORT", port)
    assert main(["up", "--data-dir", str(tmp_path)]) == 2
    assert "MESHYARD_GATEWAY_PORT" in capsys.readouterr().err


def test_an_absent_broker_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MESHYARD_KAFKA_BOOTSTRAP", "127.0.0.1:1,nonsense")
    assert main(["topics", "list", "--data-dir", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("meshyard topics: no broker answers at 127.0.0.1:1,nonsense; ")


def test_the_version_is_the_distributions(capsys: pytest.CaptureFixture[str]) -> None:
    from importlib.metadata import version

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"meshyard {version('meshyard')}\n"


def test_the_request_has_only_what_was_given() -> None:
    arguments = parser().parse_args(["submit", "a chair"])
    assert request_of(arguments) == {"workflow": "text-to-3d", "prompt": "a chair"}
    arguments = parser().parse_args(
        [
            "submit",
            "a chair",
            "--seed",
            "7",
            "--pipeline",
            "synthetic",
            "--parameter",
            "seconds=0.5",
            "--parameter",
            "a=b=c",
        ]
    )
    assert request_of(arguments) == {
        "workflow": "text-to-3d",
        "prompt": "a chair",
        "seed": 7,
        "pipeline_id": "synthetic",
        "parameters": {"seconds": "0.5", "a": "b=c"},
    }
    with pytest.raises(UsageError, match="--parameter"):
        request_of(parser().parse_args(["submit", "a chair", "--parameter", "=5"]))
