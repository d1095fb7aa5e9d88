"""What the comparison with other task queues makes of its figures, and how it names what is missing."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.bench import peers_env
from gateway.bench.noop import BenchFailed
from gateway.bench.peers import PEERS, Talker, comparison
from gateway.bench.peers_env import DRIVERS, PeersMissing, peers_environment, redis_server, requirements
from gateway.cli import bench_peers
from gateway.cli.__main__ import main
from gateway.cli.errors import CommandError

FIGURES: dict[str, Any] = {"jobs_per_cpu_s": 500.0, "p50_ms": 30.0, "jobs_per_s": 1.0, "lost": 0}


def test_ratios_are_ours_to_theirs() -> None:
    found = comparison(
        {
            "meshyard": FIGURES,
            "meshyard_http": FIGURES | {"jobs_per_cpu_s": 400.0},
            "celery": FIGURES | {"jobs_per_cpu_s": 100.0, "p50_ms": 12.0},
            "dramatiq": FIGURES | {"jobs_per_cpu_s": 400.0, "p50_ms": None},
        }
    )
    assert (found["cpu_ratio_to_celery"], found["p50_ratio_to_celery"]) == (5.0, 2.5)
    assert (found["jobs_per_cpu_s"], found["celery_jobs_per_cpu_s"]) == (500.0, 100.0)
    assert (found["cpu_ratio_to_dramatiq"], found["p50_ratio_to_dramatiq"]) == (1.25, None)
    assert found["meshyard_http"]["jobs_per_cpu_s"] == 400.0
    assert set(found["peers"]) == {peer.name for peer in PEERS}


def test_a_missing_server_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(PeersMissing) as caught:
        redis_server()
    assert caught.value.what == "redis-server"
    assert "install redis" in caught.value.remedy
    assert main(["bench", "peers"]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert "redis-server" in said[0]
    assert caught.value.remedy in said[0]


def test_without_the_source_repository_there_are_no_drivers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert requirements() == DRIVERS / "requirements.txt"
    monkeypatch.setattr(peers_env, "DRIVERS", tmp_path)
    with pytest.raises(PeersMissing, match="checkout of the source repository"):
        requirements()


def test_an_environment_that_is_complete_is_used_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told: list[str] = []
    commands: list[list[str]] = []

    def install(command: list[str]) -> None:
        commands.append(command)
        Path(command[-1]).mkdir(exist_ok=True) if "venv" in command else None

    monkeypatch.setattr(peers_env, "_run", install)
    first = peers_environment(tmp_path, told.append)
    assert peers_environment(tmp_path, told.append) == first
    assert len(commands) == 2
    assert told == ["Installing the peers"]
    assert str(DRIVERS / "requirements.txt") in commands[1]


def test_packages_that_cannot_be_had_are_named_with_the_command_that_failed(tmp_path: Path) -> None:
    with pytest.raises(PeersMissing, match=r"failed: boom"):
        peers_env._run([sys.executable, "-c", "import sys; sys.exit('boom')"])
    with pytest.raises(PeersMissing, match="nowhere"):
        peers_env._run([str(tmp_path / "nowhere")])


def test_every_pin_is_exact() -> None:
    pins = [line for line in requirements().read_text().splitlines() if not line.startswith("#")]
    assert pins
    assert all("==" in line for line in pins)


def talker(code: str) -> Talker:
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    return Talker("submitter", process)


def close(spoken: Talker) -> None:
    assert spoken.process.stdin is not None
    try:
        spoken.process.stdin.close()
    except BrokenPipeError:
        pass
    spoken.process.wait(10)
    spoken.close()


def test_lines_of_json_go_to_a_process_and_back() -> None:
    echo = talker("import sys\nfor line in sys.stdin: print(line, end='', flush=True)")
    assert echo.ask({"jobs": 3}, 10.0) == {"jobs": 3}
    assert echo.ask({"jobs": 4}, 10.0) == {"jobs": 4}
    with pytest.raises(BenchFailed, match="does not answer"):
        echo.hear(0.01)
    close(echo)


def test_a_process_that_dies_is_noticed() -> None:
    dead = talker("import sys; sys.stdin.readline()")
    with pytest.raises(BenchFailed, match="the submitter has died"):
        dead.ask({}, 10.0)
    close(dead)


def test_a_run_tells_the_figures_and_fails_when_jobs_are_lost(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = FIGURES | {"p95_ms": 2.0, "p99_ms": None, "other_cores": 0.0, "title": "x", "not_succeeded": 0}
    measured = dict.fromkeys(("meshyard", "meshyard_http", "celery", "dramatiq"), one)
    assert bench_peers.report(measured, tmp_path / "a.json") == 0
    assert json.loads((tmp_path / "a.json").read_text())["cpu_ratio_to_celery"] == 1.0
    assert "1.0 times the jobs per CPU-second" in capsys.readouterr().out
    with pytest.raises(CommandError, match="celery"):
        bench_peers.report(measured | {"celery": one | {"lost": 2}}, None)
