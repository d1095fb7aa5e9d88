"""`meshyard submit PROMPT`: one job; with `--wait` until its end."""

import argparse
import json
import sys
from typing import Any, Final

from gateway.cli.errors import UsageError
from gateway.cli.target import add_target, find_target

HELP = "submit a job"
LONGEST_PROMPT: Final = 2_000
QUALITIES: Final = ("draft", "standard", "high")


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
    parser.add_argument("--wait", action="store_true", help="wait for the job's end; exit code 0 only if it succeeded")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_target(parser)


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
            return 0
        api.wait(job["id"])
        job = api.job(job["id"])
    if arguments.json:
        sys.stdout.write(json.dumps(job, indent=1) + "\n")
    else:
        error = job.get("error")
        sys.stdout.write(f"{job['id']} {job['state']}{': ' + str(error['message']) if error else ''}\n")
    return 0 if job["state"] == "succeeded" else 1
