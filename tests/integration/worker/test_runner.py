"""The runner with a real child process; no Kafka."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from inference.outcome import Canceled, Failed, Finished, Succeeded
from inference.runner import ChildWillNotLoad, Runner
from inference.settings import WorkerSettings
from inference.work import WorkItem
from streams.clock import SystemClock
from streams.objects import ObjectStore
from tests.unit.worker.items import item

WAIT_SECONDS = 20.0
LONG = {"seconds": "60"}


class Told:
    """What was said of progress."""

    def __init__(self) -> None:
        self.words: list[tuple[float, str]] = []

    def take(self, fraction: float, message: str) -> None:
        self.words.append((fraction, message))


@contextmanager
def runner(folder: Path, told: Told | None = None, **limits: Any) -> Iterator[Runner]:
    settings = WorkerSettings(pool="p", slot=1, serves=("synthetic/generate",), data_dir=folder)
    store = ObjectStore(f"file://{folder}/objects")
    made = Runner(replace(settings, **limits), store, SystemClock(), (told or Told()).take)
    try:
        ready(made)
        yield made
    finally:
        made.close()


def ready(made: Runner) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not made.ready:
        assert time.monotonic() < deadline
        assert made.step(0.5) is None


def end(made: Runner) -> Finished:
    deadline = time.monotonic() + WAIT_SECONDS
    while (finished := made.step(0.1)) is None:
        assert time.monotonic() < deadline
    return finished


def run(made: Runner, work: WorkItem) -> Finished:
    ready(made)
    return made.start(work) or end(made)


def suspended(made: Runner, work: WorkItem) -> psutil.Process:
    """Starts an item and stops its child's process in the midst of it."""
    assert made.start(work) is None
    child = psutil.Process(made.child_pid)
    child.suspend()
    return child


def test_a_deaf_child_is_killed_after_a_cancel(tmp_path: Path) -> None:
    with runner(tmp_path, cancel_grace_seconds=0.3) as made:
        child = suspended(made, item(parameters=LONG))
        made.cancel()
        assert end(made).ending == Canceled()
        assert not child.is_running()
        assert isinstance(run(made, item("next")).ending, Succeeded)


def test_a_silent_child_is_stuck(tmp_path: Path) -> None:
    with runner(tmp_path, silence_seconds=0.5) as made:
        suspended(made, item(parameters=LONG))
        ending = end(made).ending
        assert isinstance(ending, Failed)
        assert ending.error_class == "timeout"


def test_a_killed_child_is_a_crash_and_the_next_one_serves(tmp_path: Path) -> None:
    with runner(tmp_path) as made:
        assert made.start(item(parameters=LONG)) is None
        os.kill(made.child_pid, signal.SIGSEGV)
        ending = end(made).ending
        assert isinstance(ending, Failed)
        assert (ending.error_class, "SIGSEGV" in ending.message) == ("crash", True)
        assert isinstance(run(made, item("next")).ending, Succeeded)


def test_what_a_child_started_ends_with_it(tmp_path: Path) -> None:
    with runner(tmp_path) as made:
        assert made.start(item(parameters=LONG)) is None
        # A process of the child's group, as a stage's helper is.
        helper = subprocess.Popen(["/bin/sleep", "60"], process_group=made.child_pid)
        made.abandon()
        assert helper.wait(WAIT_SECONDS) == -signal.SIGKILL


def test_a_child_that_dies_idle_is_replaced(tmp_path: Path) -> None:
    with runner(tmp_path) as made:
        before = made.child_pid
        os.kill(before, signal.SIGKILL)
        while made.ready:
            assert made.step(0.5) is None
        assert isinstance(run(made, item()).ending, Succeeded)
        assert made.child_pid != before


def test_a_child_that_died_unnoticed_costs_the_next_item_an_attempt(tmp_path: Path) -> None:
    with runner(tmp_path) as made:
        child = psutil.Process(made.child_pid)
        child.kill()
        while child.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        ending = run(made, item()).ending
        assert isinstance(ending, Failed)
        assert ending.error_class == "crash"
        assert isinstance(run(made, item("next")).ending, Succeeded)


def test_a_cancel_for_an_ended_run_does_not_touch_the_next(tmp_path: Path) -> None:
    told = Told()
    with runner(tmp_path, told) as made:
        made.cancel()  # nothing runs
        first = run(made, item("first"))
        made.cancel()
        second = run(made, item("second", parameters={"seconds": "0.3"}))
        assert isinstance(first.ending, Succeeded)
        assert isinstance(second.ending, Succeeded)
    fractions = [fraction for fraction, _ in told.words]
    assert fractions == sorted(fractions)
    assert fractions


def test_an_abandoned_item_has_no_end(tmp_path: Path) -> None:
    with runner(tmp_path) as made:
        assert made.start(item(parameters=LONG)) is None
        made.abandon()
        assert made.item is None
        assert run(made, item("next")).item.job_id == "next"


def test_an_unknown_stage_fails_for_good(tmp_path: Path) -> None:
    with runner(tmp_path) as made:
        ending = run(made, item(pipeline_id="other")).ending
        assert isinstance(ending, Failed)
        assert ending.error_class == "permanent"


def test_what_cannot_be_loaded_is_no_slot(tmp_path: Path) -> None:
    with pytest.raises(ChildWillNotLoad, match="no stage"), runner(tmp_path, serves=("synthetic/fly",)):
        pass
