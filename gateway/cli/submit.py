"""`meshyard submit PROMPT`: one job; with `--wait` until its end."""

import argparse
import json
import re
import sys
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from gateway.cli.errors import UsageError
from gateway.cli.target import add_target, find_target

HELP = "submit a job"
LONGEST_PROMPT: Final = 2_000
QUALITIES: Final = ("draft", "standard", "high")
LANES: Final = ("interactive", "standard", "batch")
TEXTURE_SIZES: Final = (512, 1024, 2048, 4096, 8192)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("prompt", metavar="PROMPT", type=prompt, help="what the model shall show")
    parser.add_argument("--seed", type=seed, help="the same seed gives the same model (default: chosen by the gateway)")
    parser.add_argument("--quality", choices=QUALITIES, help="how fine the model is (default: standard)")
    parser.add_argument("--pipeline", metavar="ID", help="the pipeline that serves it (default: the workflow's)")
    parser.add_argument(
        "--parameter", action="append", default=[], metavar="NAME=VALUE", help="a parameter of the pipeline; repeatable"
    )
    parser.add_argument(
        "--idempotency-key", metavar="KEY", help="submitting again with the same key makes no second job"
    )
    _add_scheduling(parser)
    parser.add_argument("--wait", action="store_true", help="wait for the job's end; exit code 0 only if it succeeded")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_target(parser)


def _add_scheduling(parser: argparse.ArgumentParser) -> None:
    """When and in which order the job shall run."""
    parser.add_argument(
        "--lane", choices=LANES, help="class of urgency (default: interactive for drafts, else standard)"
    )
    parser.add_argument("--priority", type=priority, metavar="N", help="among your own jobs, 1 (first) to 5 (3)")
    parser.add_argument(
        "--texture-size",
        type=int,
        choices=TEXTURE_SIZES,
        metavar="N",
        help="edge of the texture in pixels (by quality)",
    )
    parser.add_argument(
        "--run-at", type=moment, metavar="TIME", help="not before: a time like 2030-01-31T12:00:00+01:00, or +30m"
    )
    parser.add_argument(
        "--on-limit",
        choices=("reject", "wait"),
        help="over the rate limit: refuse (default), or hold until there is room",
    )
    parser.add_argument(
        "--debounce", type=debounce, metavar="KEY=SECONDS", help="hold, and let a newer request with the key replace it"
    )
    parser.add_argument(
        "--start-within", type=duration, metavar="TIME", help="abort if not started so soon, like 90s or 5m"
    )
    parser.add_argument("--finish-within", type=duration, metavar="TIME", help="end it if not done so soon")
    parser.add_argument(
        "--max-queue-depth", type=count, metavar="N", help="refuse when more tasks than this wait in the whole service"
    )


def priority(text: str) -> int:
    """A priority. Raises ArgumentTypeError."""
    if text not in ("1", "2", "3", "4", "5"):
        raise argparse.ArgumentTypeError(f"{text!r} is no priority; give 1 (first) to 5")
    return int(text)


def count(text: str) -> int:
    """A number from 0. Raises ArgumentTypeError."""
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"{text!r} is no count; give a whole number from 0 to 999999999")
    return int(text)


_UNIT_SECONDS: Final = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_DURATION: Final = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)([smhd]?)", re.ASCII)


def duration(text: str) -> float:
    """A time span in seconds, from texts like 90, 90s, 5m, 2h or 1d. Raises ArgumentTypeError."""
    found = _DURATION.fullmatch(text)
    seconds = float(found[1]) * _UNIT_SECONDS[found[2]] if found else 0.0
    if seconds <= 0:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no time span; give seconds above 0, or a number with s, m, h or d"
        )
    return seconds


def moment(text: str) -> str:
    """A time of day in ISO 8601, also from a time span ahead like +30m. Raises ArgumentTypeError."""
    if text.startswith("+"):
        return (datetime.now(UTC) + timedelta(seconds=duration(text[1:]))).isoformat(timespec="milliseconds")
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; give one like 2030-01-31T12:00:00Z, or +30m") from None
    # A time without a zone is meant as this machine's.
    return at.astimezone().isoformat(timespec="milliseconds")


def debounce(text: str) -> dict[str, object]:
    """The `debounce` of a request. Raises ArgumentTypeError."""
    key, equals, span = text.rpartition("=")
    if not equals or not key:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=SECONDS; give for example sofa=5")
    return {"key": key, "seconds": duration(span)}


def prompt(text: str) -> str:
    """A prompt. Raises ArgumentTypeError."""
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty; say what the model shall show")
    if len(text) > LONGEST_PROMPT:
        raise argparse.ArgumentTypeError(f"has {len(text)} characters; {LONGEST_PROMPT} are the most")
    return text


def seed(text: str) -> int:
    """A seed. Raises ArgumentTypeError."""
    if not text.isascii() or not text.isdigit() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is no seed; give a number from 0 to {2**32 - 1}")
    return int(text)


def request_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """The body of POST /v1/jobs. Raises UsageError."""
    parameters = {}
    for text in arguments.parameter:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError("--parameter", f"{text!r} has no value; give NAME=VALUE")
        parameters[name] = value
    request: dict[str, Any] = {"workflow": "text-to-3d", "prompt": arguments.prompt}
    optional = {
        "seed": arguments.seed,
        "quality": arguments.quality,
        "pipeline_id": arguments.pipeline,
        "parameters": parameters or None,
        "lane": arguments.lane,
        "priority": arguments.priority,
        "texture_size": arguments.texture_size,
        "run_at": arguments.run_at,
        "on_limit": arguments.on_limit,
        "debounce": arguments.debounce,
        "start_within_seconds": arguments.start_within,
        "finish_within_seconds": arguments.finish_within,
        "max_queue_depth": arguments.max_queue_depth,
    }
    return request | {name: value for name, value in optional.items() if value is not None}


def run(arguments: argparse.Namespace) -> int:
    """Submit the job and print its id, or with `--wait` how it ended."""
    request = request_of(arguments)
    target = find_target(arguments)

    from gateway.cli.api import Api

    with Api(target) as api:
        job = api.submit(request, arguments.idempotency_key)
        if not arguments.wait:
            sys.stdout.write(json.dumps(job, indent=1) + "\n" if arguments.json else f"{job['id']}\n")
            if job["state"] == "held" and not arguments.json:
                sys.stderr.write(f"meshyard submit: held until {job['held_until']}\n")
            return 0
        api.wait(job["id"])
        job = api.job(job["id"])
    if arguments.json:
        sys.stdout.write(json.dumps(job, indent=1) + "\n")
    else:
        error = job.get("error")
        sys.stdout.write(f"{job['id']} {job['state']}{': ' + str(error['message']) if error else ''}\n")
    return 0 if job["state"] == "succeeded" else 1
