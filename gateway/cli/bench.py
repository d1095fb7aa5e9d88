"""`meshyard bench noop`: what a job costs when its work costs nothing, on the stack that runs or on one of its own."""

import argparse
import json
import os
import platform
import signal
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from gateway.cli.errors import CommandError, UsageError
from gateway.cli.target import LOCAL_PATIENCE_SECONDS, Target, add_data_dir, read_key

if TYPE_CHECKING:
    from rich.console import Console

    from gateway.supervisor.state import StackState

HELP = "measure jobs that do nothing: jobs per CPU-second, and latency at low load"
CLIENTS: Final = 8
WARM_UP_JOBS: Final = 50
MOST_JOBS: Final = 800
"""The user `local` may send 1,000 requests at once; more would measure the limit."""
REQUEST: Final = {"workflow": "text-to-3d", "pipeline_id": "synthetic", "prompt": "nothing"}
OPEN_STATES: Final = ("submitted", "queued", "running")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("benchmark", choices=("noop",), help="jobs of three stages that do nothing")
    parser.add_argument("--jobs", type=count, default=300, metavar="N", help="jobs of the load phase (300)")
    parser.add_argument("--singles", type=count, default=60, metavar="N", help="jobs of the low-load phase (60)")
    parser.add_argument("--slots", type=count, default=2, metavar="N", help="workers of the stack it starts (2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    add_data_dir(parser)


def count(text: str) -> int:
    """A number of jobs or slots. Raises ArgumentTypeError."""
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MOST_JOBS:
        raise argparse.ArgumentTypeError(f"{text!r}; give a number from 1 to {MOST_JOBS}")
    return int(text)


def run(arguments: argparse.Namespace) -> int:
    """Measure, print, and with --json write."""
    from rich.console import Console

    if arguments.jobs + arguments.singles + WARM_UP_JOBS > MOST_JOBS + 100:
        raise UsageError("--jobs", f"with --singles more than {MOST_JOBS + 100 - WARM_UP_JOBS} jobs; give fewer")
    file: Path | None = arguments.json
    if file is not None and not file.absolute().parent.is_dir():
        raise UsageError("--json", f"{file.parent} is no directory; name a file in one that exists")
    console = Console(stderr=True, soft_wrap=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with ExitStack() as until_done:
        stack = _stack(arguments, console, until_done)
        figures = _measure(stack, arguments.jobs, arguments.singles, console)
    text = json.dumps(figures, indent=1) + "\n"
    sys.stdout.write(text)
    if file is not None:
        file.write_text(text)
    return 0


def _stack(arguments: argparse.Namespace, console: "Console", until_done: ExitStack) -> "StackState":
    """The stack of --data-dir; without one, a stack of its own with synthetic slots only."""
    from gateway.cli.logfile import log_to_file
    from gateway.supervisor.layout import StackSettings
    from gateway.supervisor.stack import Stack
    from gateway.supervisor.state import running

    if arguments.data_dir is not None:
        found = running(arguments.data_dir.expanduser().absolute())
        if found is None:
            raise CommandError(f"no stack runs on {arguments.data_dir}; leave --data-dir out to have one started")
        return found
    root = Path(until_done.enter_context(TemporaryDirectory(prefix="meshyard-bench-")))
    settings = StackSettings.from_env(root, slots=0, synthetic_slots=arguments.slots)
    until_done.enter_context(log_to_file(root / "logs" / "supervisor.log"))
    stack = until_done.enter_context(Stack(settings, console))
    with console.status("Starting a stack"):
        stack.start()
        if not stack.wait_warm():
            raise CommandError("the workers did not start")
    return stack.state()


def _measure(stack: "StackState", jobs: int, singles: int, console: "Console") -> dict[str, Any]:
    """Warm up, then the load phase, then one job at a time."""
    from gateway.cli.api import Api

    target = Target(url=stack.gateway, key=read_key(Path(stack.key_file)), patience_seconds=LOCAL_PATIENCE_SECONDS)
    with Api(target) as api, console.status("Warming up") as line:
        _load(target, api, WARM_UP_JOBS)
        line.update(f"{jobs} jobs at once")
        before, began = _cpu_seconds(stack), time.monotonic()
        _load(target, api, jobs)
        wall_seconds = time.monotonic() - began
        used = {name: seconds - before.get(name, 0.0) for name, seconds in _cpu_seconds(stack).items()}
        line.update(f"{singles} jobs, one after the other")
        latencies = [_one(api) for _ in range(singles)]
    cpu_seconds = sum(used.values())
    return {
        "benchmark": "noop",
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cpus": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()},
        "load": {
            "jobs": jobs,
            "workers": sum(role.name.startswith("worker-") for role in stack.roles),
            "wall_seconds": round(wall_seconds, 3),
            "jobs_per_second": round(jobs / wall_seconds, 1),
            "cpu_seconds": round(cpu_seconds, 3),
            "jobs_per_cpu_second": round(jobs / cpu_seconds, 1),
            "cpu_ms_per_job_by_role": {name: round(1000 * seconds / jobs, 2) for name, seconds in used.items()},
        },
        "low_load": {
            "jobs": singles,
            "seconds_p50": round(statistics.median(latencies), 4),
            "seconds_p95": round(sorted(latencies)[max(0, round(0.95 * singles) - 1)], 4),
        },
    }


def _load(target: Target, api: Any, jobs: int) -> None:
    """Submit from several clients at once and wait until none of the user's jobs is open."""
    from gateway.cli.api import Api

    def submit(share: int) -> None:
        with Api(target) as one:
            for _ in range(share):
                one.submit(REQUEST)

    shares = [jobs // CLIENTS + (client < jobs % CLIENTS) for client in range(CLIENTS)]
    with ThreadPoolExecutor(CLIENTS) as pool:
        for done in [pool.submit(submit, share) for share in shares]:
            done.result()
    while any(api.jobs(1, state) for state in OPEN_STATES):
        time.sleep(0.2)


def _one(api: Any) -> float:
    """Seconds from before the submission until the stream told the job's end."""
    began = time.monotonic()
    job = api.submit(REQUEST)
    api.wait(job["id"])
    return time.monotonic() - began


def _cpu_seconds(stack: "StackState") -> dict[str, float]:
    """CPU that each role and its children have used, by role."""
    import psutil

    used = {}
    for role in stack.roles:
        process = psutil.Process(role.pid)
        family = [process, *process.children(recursive=True)]
        used[role.name] = sum(sum(one.cpu_times()[:2]) for one in family)
    return used
