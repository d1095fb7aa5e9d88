"""The runner with a real child process; no Kafka."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
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
from schemas.codec import Codec
from streams.clock import SystemClock
from streams.objects import ObjectStore
from tests.unit.worker.items import item

WAIT_SECONDS = 20.0
LONG = {"seconds": "60", "mode": "burn"}
SLEEPS = {"seconds": "60"}


class Told:
    """What was said of runs before they ended."""

    def __init__(self) -> None:
        self.words: list[tuple[float, str]] = []
        self.begun: list[str] = []

    def on_begun(self, item: WorkItem, at: int) -> None:
        assert at > 0
        self.begun.append(item.job_id)

    def on_progress(self, item: WorkItem, fraction: float, message: str) -> None:
        self.words.append((fraction, message))


@contextmanager
def runner(folder: Path, told: Told | None = None, **limits: Any) -> Iterator[Runner]:
    settings = WorkerSettings(pool="p", slot=1, serves=("synthetic/generate",), data_dir=folder)
    store = ObjectStore(f"file://{folder}/objects")
    made = Runner(replace(settings, **limits), store, Codec(), SystemClock(), told or Told())
    try:
        ready(made)
        yield made
    finally:
        made.close()


def ready(made: Runner) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not made.ready:
        assert time.monotonic() < deadline
        assert made.step(0.5) == []


def is_dead(process: psutil.Process) -> bool:
    """Whether all threads of an unreaped process have ended; the first may be a zombie while others hold its files."""
    return process.status() == psutil.STATUS_ZOMBIE and len(os.listdir(f"/proc/{process.pid}/task")) == 1


def ends(made: Runner, count: int) -> dict[str, Finished]:
    """The next ends, by job."""
    deadline = time.monotonic() + WAIT_SECONDS
    found: list[Finished] = []
    while len(found) < count:
        assert time.monotonic() < deadline
        found += made.step(0.1)
    return {finished.item.job_id: finished for finished in found}


def end(made: Runner) -> Finished:
    (finished,) = ends(made, 1).values()
    return finished


def run(made: Runner, work: WorkItem) -> Finished:
    ready(made)
    made.start([work])
    return end(made)


def at_work(made: Runner, told: Told, *work: WorkItem) -> None:
    """Hands over items and waits until the first one has begun."""
    made.start(work)
    until(lambda: made.step(0.05) == [] and bool(told.begun), "begin")


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, what


def test_a_deaf_child_is_killed_after_a_cancel(tmp_path: Path) -> None:
    told = Told()
    with runner(tmp_path, told, cancel_grace_seconds=0.3) as made:
        deaf = item(parameters=LONG)
        at_work(made, told, deaf)
        child = psutil.Process(made.child_pid)
        child.suspend()
        assert made.cancel(deaf.dispatch_id)
        assert end(made).ending == Canceled()
        assert not child.is_running()
        assert isinstance(run(made, item("next")).ending, Succeeded)


@pytest.mark.parametrize("parameters", [LONG, SLEEPS], ids=["burn", "sleep"])
def test_a_silent_child_is_stuck(tmp_path: Path, parameters: dict[str, str]) -> None:
    told = Told()
    with runner(tmp_path, told, silence_seconds=0.5) as made:
        at_work(made, told, item(parameters=parameters))
        psutil.Process(made.child_pid).suspend()
        ending = end(made).ending
        assert isinstance(ending, Failed)
        assert ending.error_class == "timeout"


@pytest.mark.parametrize("parameters", [LONG, SLEEPS], ids=["burn", "sleep"])
def test_what_takes_too_long_times_out(tmp_path: Path, parameters: dict[str, str]) -> None:
    with runner(tmp_path, stage_timeout_seconds=0.3) as made:
        finished = run(made, item(parameters=parameters))
        assert isinstance(finished.ending, Failed)
        assert finished.ending.error_class == "timeout"
        assert finished.run_seconds >= 0.3
        assert isinstance(run(made, item("next")).ending, Succeeded)


@pytest.mark.parametrize("parameters", [LONG, SLEEPS], ids=["burn", "sleep"])
def test_a_killed_child_is_a_crash_and_the_next_one_serves(tmp_path: Path, parameters: dict[str, str]) -> None:
    with runner(tmp_path) as made:
        made.start([item(parameters=parameters)])
        os.kill(made.child_pid, signal.SIGSEGV)
        ending = end(made).ending
        assert isinstance(ending, Failed)
        assert (ending.error_class, "SIGSEGV" in ending.message) == ("crash", True)
        assert isinstance(run(made, item("next")).ending, Succeeded)


def test_what_a_child_started_ends_with_it(tmp_path: Path) -> None:
    with runner(tmp_path) as made:
        made.start([item(parameters=LONG)])
        # A process of the child's group, as a stage's helper is.
        helper = subprocess.Popen(["/bin/sleep", "60"], process_group=made.child_pid)
        made.abandon()
        assert helper.wait(WAIT_SECONDS) == -signal.SIGKILL


def test_a_child_that_dies_idle_is_replaced(tmp_path: Path) -> None:
    with runner(tmp_path) as made:
        before = made.child_pid
        os.kill(before, signal.SIGKILL)
        while made.ready:
            assert made.step(0.5) == []
        assert isinstance(run(made, item()).ending, Succeeded)
        assert made.child_pid != before


def test_a_child_that_died_unnoticed_costs_the_next_item_an_attempt(tmp_path: Path) -> None:
    with runner(tmp_path) as made:
        child = psutil.Process(made.child_pid)
        child.kill()
        while not is_dead(child):
            time.sleep(0.01)
        ending = run(made, item()).ending
        assert isinstance(ending, Failed)
        assert ending.error_class == "crash"
        assert isinstance(run(made, item("next")).ending, Succeeded)


def test_a_cancel_for_an_ended_run_does_not_touch_the_next(tmp_path: Path) -> None:
    told = Told()
    with runner(tmp_path, told) as made:
        assert not made.cancel("job-1/generate/1")  # nothing runs
        first = run(made, item("first"))
        assert not made.cancel("first/generate/1")
        second = run(made, item("second", parameters={"seconds": "1.2"}))
        assert isinstance(first.ending, Succeeded)
        assert isinstance(second.ending, Succeeded)
    fractions = [fraction for fraction, _ in told.words]
    assert fractions == sorted(fractions)
    assert fractions
    assert told.begun == ["second"], "what ends at once is not said to have begun"


def test_a_cancel_that_finds_the_child_dead_is_a_cancel(tmp_path: Path) -> None:
    told = Told()
    with runner(tmp_path, told) as made:
        canceled = item(parameters=LONG)
        at_work(made, told, canceled)
        child = psutil.Process(made.child_pid)
        child.kill()
        until(lambda: is_dead(child), "death")
        assert made.cancel(canceled.dispatch_id)
        assert made.fileno() == -1, "nobody waits for a dead child"
        assert end(made).ending == Canceled()
        assert isinstance(run(made, item("next")).ending, Succeeded)


def test_an_abandoned_item_has_no_end(tmp_path: Path) -> None:
    with runner(tmp_path) as made:
        made.start([item(parameters=LONG)])
        made.abandon()
        assert made.items == ()
        assert run(made, item("next")).item.job_id == "next"


def test_sleeps_overlap_and_each_is_measured_by_itself(tmp_path: Path) -> None:
    told = Told()
    with runner(tmp_path, told, capacity=8) as made:
        began = time.monotonic()
        made.start([item(str(number), parameters={"seconds": "0.5"}) for number in range(8)])
        assert made.free == 0
        found = ends(made, 8)
        assert time.monotonic() - began < 2.0, "one after another they take 4 s"
        assert all(0.5 <= finished.run_seconds < 2.0 for finished in found.values())
        assert sorted(told.begun) == sorted(found)
        assert made.free == 8


def test_what_works_is_done_one_after_another(tmp_path: Path) -> None:
    burns = {"seconds": "0.3", "mode": "burn"}
    told = Told()
    with runner(tmp_path, told, capacity=8) as made:
        made.start([item("a", parameters=burns), item("b"), item("c", parameters=burns), item("d")])
        found = ends(made, 4)
        assert list(found) == ["a", "b", "c", "d"]
        assert told.begun == ["a", "c"]
        assert [0.25 <= found[name].run_seconds < 0.55 for name in "ac"] == [True, True], "waiting is no work"
        assert [found[name].run_seconds < 0.1 for name in "bd"] == [True, True]
        assert [found[name].started_told for name in "abcd"] == [True, False, True, False]


def test_one_of_several_is_canceled(tmp_path: Path) -> None:
    told = Told()
    with runner(tmp_path, told, capacity=4) as made:
        works, waits, sleeps = item("works", parameters=LONG), item("waits"), item("sleeps", parameters=SLEEPS)
        made.start([sleeps, works, waits])
        until(lambda: made.step(0.05) == [] and len(told.begun) == 2, "begins")
        for one in (sleeps, waits):
            assert made.cancel(one.dispatch_id)
        found = ends(made, 2)
        assert {name: finished.ending for name, finished in found.items()} == {
            "sleeps": Canceled(),
            "waits": Canceled(),
        }
        assert found["waits"].started_at is None
        assert made.items == (works,)
        assert made.cancel(works.dispatch_id)
        assert end(made).ending == Canceled()
        assert isinstance(run(made, item("next")).ending, Succeeded)


def test_a_crash_costs_the_others_in_hand_no_attempt(tmp_path: Path) -> None:
    told = Told()
    with runner(tmp_path, told, capacity=8) as made:
        crash = item("crash", parameters={"fail": "crash:generate:1"})
        sleeps = item("sleeps", parameters={"seconds": "0.4"})
        made.start([sleeps, item("before"), crash, item("after")])
        found = ends(made, 4)
        assert isinstance(found["crash"].ending, Failed)
        assert found["crash"].ending.error_class == "crash"
        for name in ("before", "after", "sleeps"):
            assert isinstance(found[name].ending, Succeeded), name
        assert sorted(told.begun) == ["crash", "sleeps"], "what begins again is told once"


def test_failures_are_each_runs_own(tmp_path: Path) -> None:
    with runner(tmp_path, capacity=8) as made:
        wishes = {"a": "overload:generate:1", "b": "rate_limited/2.5:generate:1", "c": "oom:generate:2", "d": ""}
        made.start([item(name, parameters={"fail": text}) for name, text in wishes.items()])
        found = ends(made, 4)
        endings = {name: finished.ending for name, finished in found.items()}
        said = {n: (e.error_class, e.retry_after_seconds) for n, e in endings.items() if isinstance(e, Failed)}
        assert said == {"a": ("overload", None), "b": ("rate_limited", 2.5)}
        assert [isinstance(endings[name], Succeeded) for name in "cd"] == [True, True]


def test_the_chosen_version_runs(tmp_path: Path) -> None:
    with runner(tmp_path, capacity=4) as made:
        wish = {"fail@2": "permanent:generate:*"}
        made.start([item(version, parameters=wish, model_version=version) for version in ("1", "2", "9")])
        found = ends(made, 3)
        assert isinstance(found["1"].ending, Succeeded)
        for name in ("2", "9"):
            ending = found[name].ending
            assert isinstance(ending, Failed)
            assert ending.error_class == "permanent"


def test_a_request_that_cannot_be_read_is_invalid(tmp_path: Path) -> None:
    with runner(tmp_path) as made:
        ending = run(made, item(request=b"\x00nonsense")).ending
        assert isinstance(ending, Failed)
        assert ending.error_class == "invalid"


def test_an_unknown_stage_fails_for_good(tmp_path: Path) -> None:
    with runner(tmp_path) as made:
        ending = run(made, item(pipeline_id="other")).ending
        assert isinstance(ending, Failed)
        assert ending.error_class == "permanent"


def test_what_cannot_be_loaded_is_no_slot(tmp_path: Path) -> None:
    with pytest.raises(ChildWillNotLoad, match="no stage"), runner(tmp_path, serves=("synthetic/fly",)):
        pass
