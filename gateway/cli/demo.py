"""`meshyard demo PROMPT`: the whole way of one request, from a prompt to a file and its figures."""

import argparse
import re
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gateway.cli.errors import CommandError, UsageError
from gateway.cli.submit import prompt, seed
from gateway.cli.target import LOCAL_PATIENCE_SECONDS, Target, add_data_dir, data_dir_of, read_key
from schemas.jobs import Transition
from schemas.pipelines import PIPELINES

if TYPE_CHECKING:
    from rich.console import Console

    from gateway.cli.api import Api
    from gateway.supervisor.stack import Stack
    from gateway.supervisor.state import StackState

HELP = "make one model: starts the stack if none runs, and shows each step"
FIGURES_SECONDS: Final = 20.0
"""How long to wait for the sink to have stored the job's events."""
ACCEPTING_SECONDS: Final = 60.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("prompt", metavar="PROMPT", type=prompt, help="what the model shall show")
    parser.add_argument("--out", type=Path, default=Path("out"), metavar="DIR", help="where the files go (out)")
    parser.add_argument("--seed", type=seed, help="the same seed gives the same model (default: chosen by the gateway)")
    add_data_dir(parser)


def run(arguments: argparse.Namespace) -> int:
    """Exit code 0 only if the model's file is there."""
    from rich.console import Console

    from gateway.supervisor.state import running

    out: Path = arguments.out.expanduser()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError("--out", f"{out}: {error.strerror}; choose a directory that you may write to") from error
    console = Console(soft_wrap=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    data_dir = data_dir_of(arguments)
    with ExitStack() as until_done:
        stack = running(data_dir)
        if stack is not None:
            _wait_accepting(stack)
            return _make(arguments, stack, out, console)
        started = _start_stack(data_dir, console, until_done)
        # The job is on its way while the worker loads; a worker that cannot load ends the command.
        return _make(arguments, started.state(), out, console, warm=started.wait_warm)


def _start_stack(data_dir: Path, console: "Console", until_done: ExitStack) -> "Stack":
    """Start a stack that ends with this command."""
    from gateway.cli.logfile import log_to_file
    from gateway.supervisor.layout import StackSettings
    from gateway.supervisor.stack import Stack

    settings = StackSettings.from_env(data_dir, slots=1, synthetic_slots=0)
    stack = Stack(settings, console)
    stack.layout.root.mkdir(parents=True, exist_ok=True, mode=0o700)
    until_done.enter_context(log_to_file(stack.layout.log_file("supervisor")))
    until_done.callback(console.print, "Stack: stopped")
    until_done.enter_context(stack)
    with console.status("Starting the stack") as line:
        seconds = stack.start(tell=lambda what: line.update(f"Starting the stack: {what}"))
    console.print(f"Stack: accepting at {stack.url} after {seconds:.1f} s")
    return stack


def _wait_accepting(stack: "StackState") -> None:
    from gateway.supervisor.probes import gateway_says

    port = int(stack.gateway.rsplit(":", 1)[1])
    deadline = time.monotonic() + ACCEPTING_SECONDS
    while gateway_says(port, "/readyz")[0] != 200:
        if time.monotonic() > deadline:
            raise CommandError(f"the running stack at {stack.gateway} does not accept requests; see `meshyard status`")
        time.sleep(0.2)


def _make(
    arguments: argparse.Namespace,
    stack: "StackState",
    out: Path,
    console: "Console",
    warm: Callable[[], bool] | None = None,
) -> int:
    from gateway.cli.api import Api

    request: dict[str, Any] = {"workflow": "text-to-3d", "prompt": arguments.prompt}
    if arguments.seed is not None:
        request["seed"] = arguments.seed
    began = time.monotonic()
    with Api(
        Target(url=stack.gateway, key=read_key(Path(stack.key_file)), patience_seconds=LOCAL_PATIENCE_SECONDS)
    ) as api:
        job = api.submit(request)
        if warm is not None:
            with console.status("Loading the model"):
                warm()
        _follow(api, job["id"], console)
        job = api.job(job["id"])
        if job["state"] != "succeeded":
            error = job.get("error") or {"class": job["state"], "message": "no reason given"}
            raise CommandError(f"the job {job['id']} ended as {job['state']}: {error['class']}: {error['message']}")
        seconds = time.monotonic() - began
        glb, preview = _download(api, job, arguments.prompt, out)
    console.print(f"Model:   {glb} ({glb.stat().st_size / 1e3:.0f} kB)", highlight=False)
    if preview is not None:
        console.print(f"Preview: {preview}", highlight=False)
    _print_figures(Path(stack.clickhouse_url_file), job["id"], seconds, console)
    return 0


def _follow(api: "Api", job_id: str, console: "Console") -> None:
    """One bar for the whole job, with the name of the stage that runs."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<24}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("submitted", total=100.0)
        for _, job in api.events(job_id):
            stage = job.get("stage")
            named = f"{stage}" if job["state"] == "running" and stage else job["state"]
            progress.update(bar, completed=job["progress"], description=named)


def _download(api: "Api", job: dict[str, Any], text: str, out: Path) -> tuple[Path, Path | None]:
    """The model and, where there is one, its preview. Raises CommandError when there is no model."""
    names = {asset["name"] for asset in job["assets"]}
    if "model.glb" not in names:
        raise CommandError(
            f"the job {job['id']} succeeded without a model; its files: {', '.join(sorted(names)) or '-'}"
        )
    stem = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60] or "model"
    glb = out / f"{stem}.glb"
    api.download(job["id"], "model.glb", glb)
    with glb.open("rb") as file:
        if file.read(4) != b"glTF":
            raise CommandError(f"{glb} is no GLB file")
    if "preview.png" not in names:
        return glb, None
    preview = out / f"{stem}.png"
    api.download(job["id"], "preview.png", preview)
    return glb, preview


def _print_figures(url_file: Path, job_id: str, seconds: float, console: "Console") -> None:
    """The job's figures as ClickHouse has them; says so when the sink is not there yet."""
    from rich.table import Table

    from analytics.client import Analytics, AnalyticsUnavailableError, QueryRefusedError

    analytics = Analytics(url_file.read_text().strip())
    deadline = time.monotonic() + FIGURES_SECONDS
    try:
        while True:
            problem = "its events are not stored yet"
            try:
                # The stages first: the job's sums are then of no fewer stages than the rows above them.
                stages = analytics.query("job_stages", {"job_id": job_id})
                jobs = analytics.query("job", {"job_id": job_id})
            except (AnalyticsUnavailableError, QueryRefusedError) as error:
                stages, jobs, problem = [], [], str(error)
            if jobs and _all_stored(jobs[0], stages):
                break
            if time.monotonic() > deadline:
                sys.stderr.write(f"meshyard demo: no figures from ClickHouse: {problem}\n")
                return
            time.sleep(0.1)
        table = Table("stage", "attempt", "wait", "run", "cost", title="From ClickHouse")
        for row in stages:
            times = (_seconds(row[name]) for name in ("wait_seconds", "run_seconds"))
            table.add_row(row["stage"], str(row["attempt"]), *times, _dollars(row["cost_usd"]))
        whole = jobs[0]
        table.add_row("end to end", "", "", _seconds(whole["seconds"]), _dollars(whole["cost_usd"]), style="bold")
        console.print(table)
        console.print(f"From submission to the file on disk: {seconds:.2f} s", highlight=False)
    finally:
        analytics.close()


def _all_stored(job: dict[str, Any], stages: list[dict[str, Any]]) -> bool:
    """Whether the job's end and all its stages' are there: a block reaches one view a moment before another."""
    done = {row["stage"] for row in stages if row["outcome"] == Transition.STAGE_SUCCEEDED}
    wanted = {stage.name for stage in PIPELINES[job["pipeline_id"]].stages}
    return job["state"] == "succeeded" and done == wanted and all(row["cost_usd"] is not None for row in stages)


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"


def _dollars(value: float | None) -> str:
    return "-" if value is None else f"${float(value):.6f}"
