"""What `meshyard submit` and `meshyard jobs` make of their arguments."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.cli.__main__ import main, parser
from gateway.cli.errors import UsageError
from gateway.cli.jobs import standing_lines, wish_of
from gateway.cli.submit import request_of
from gateway.validation import parse_job, run_at_ms


def request(*argv: str) -> dict[str, Any]:
    return request_of(parser().parse_args(["submit", "a chair", *argv]))


def test_without_options_a_request_names_nothing_more() -> None:
    assert request() == {"workflow": "text-to-3d", "prompt": "a chair"}


def test_every_option_becomes_a_field_that_the_gateway_takes() -> None:
    found = request(
        *("--lane", "batch", "--priority", "1", "--texture-size", "2048", "--run-at", "2024-01-31T12:00:00+01:00"),
        *("--on-limit", "wait", "--debounce", "my=sofa=1.5m", "--start-within", "90", "--finish-within", "2h"),
        *("--max-queue-depth", "0"),
    )
    assert (
        found.items()
        >= {
            "lane": "batch",
            "priority": 1,
            "texture_size": 2048,
            "on_limit": "wait",
            "debounce": {"key": "my=sofa", "seconds": 90.0},
            "start_within_seconds": 90.0,
            "finish_within_seconds": 7_200.0,
            "max_queue_depth": 0,
        }.items()
    )
    import json

    body, _ = parse_job(json.dumps(found).encode())
    assert run_at_ms(body.run_at, 2_000_000_000_000) == 1_706_698_800_000


def test_a_time_may_be_told_from_now() -> None:
    at = datetime.fromisoformat(request("--run-at", "+30m")["run_at"])
    assert timedelta(minutes=29) < at - datetime.now(UTC) <= timedelta(minutes=30)
    assert datetime.fromisoformat(request("--run-at", "2024-01-31T12:00")["run_at"]).tzinfo is not None


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (("--lane", "fast"), "--lane"),
        (("--priority", "0"), "--priority"),
        (("--texture-size", "1000"), "--texture-size"),
        (("--run-at", "soon"), "--run-at"),
        (("--run-at", "+soon"), "--run-at"),
        (("--on-limit", "queue"), "--on-limit"),
        (("--debounce", "5"), "--debounce"),
        (("--debounce", "=5"), "--debounce"),
        (("--debounce", "sofa=x"), "--debounce"),
        (("--start-within", "-1"), "--start-within"),
        (("--finish-within", "1y"), "--finish-within"),
        (("--max-queue-depth", "many"), "--max-queue-depth"),
    ],
)
def test_bad_options_are_one_line_that_names_them(
    argv: tuple[str, ...], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["submit", "a chair", *argv])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert named in error


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ((), ("list", None, None)),
        (("list",), ("list", None, None)),
        (("some-id",), ("show", "some-id", None)),
        (("show", "some-id"), ("show", "some-id", None)),
        (("some-id", "--cancel"), ("cancel", "some-id", None)),
        (("cancel", "some-id"), ("cancel", "some-id", None)),
        (("pause", "some-id"), ("pause", "some-id", None)),
        (("resume", "--all"), ("resume", None, None)),
        (("reprioritise", "some-id", "1"), ("reprioritise", "some-id", 1)),
    ],
)
def test_what_is_wished_of_jobs(argv: tuple[str, ...], expected: tuple[str, str | None, int | None]) -> None:
    assert wish_of(parser().parse_args(["jobs", *argv])) == expected


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (("show",), "ID"),
        (("pause",), "ID"),
        (("--cancel",), "ID"),
        (("some-id", "another"), "ACTION"),
        (("list", "some-id"), "ACTION"),
        (("reprioritise", "some-id"), "PRIORITY"),
        (("reprioritise", "some-id", "6"), "PRIORITY"),
        (("cancel", "--all"), "--all"),
        (("pause", "some-id", "--all"), "--all"),
    ],
)
def test_wishes_that_cannot_be_meant_name_what_is_wrong(argv: tuple[str, ...], named: str) -> None:
    with pytest.raises(UsageError) as caught:
        wish_of(parser().parse_args(["jobs", *argv]))
    assert caught.value.field == named


def test_a_jobs_standing_is_told_in_words() -> None:
    job: dict[str, Any] = {"lane": "batch", "tier": "pro", "priority": 2, "paused": False, "held_until": None}
    job |= {"retry_at": None, "queue_position": None, "eta": None, "adjustments": [], "retry_of": None}
    assert standing_lines(job) == ["lane batch, tier pro, priority 2"]
    bounds = {"wait_seconds": {"p50": 1.0, "p90": 2.0}, "total_seconds": {"p50": 3.0, "p90": 4.0}}
    busy = job | {"paused": True, "held_until": "then", "retry_at": "later", "queue_position": 7, "eta": bounds}
    told = "\n".join(standing_lines(busy | {"adjustments": ["2048 px"], "retry_of": "dead"}))
    for part in ("paused", "held until then", "later", "7", "1.00 s", "within 4.00 s", "2048 px", "repeats dead"):
        assert part in told
