"""Made traffic: deterministic, complete, and served as the policy says."""

from itertools import islice
from pathlib import Path

import pytest

from streams.simulate.generated import Run, simulate
from streams.simulate.plots import plot_run
from streams.simulate.spec import Spec, load_spec
from streams.simulate.traffic import MadeWork, arrivals, losses

FLOOD = """
seed = 3
duration_seconds = 60
[pools.default]
slots = 4
lost_per_hour = {lost}
back_seconds = 2
[service.generate]
mean_seconds = 0.5
[service.retopology]
mean_seconds = 0.2
[service.texture]
mean_seconds = 0.3
{failures}
[[users]]
name = "neighbour"
count = 3
load = 0.4
lanes = {{ interactive = 0.2, standard = 0.8 }}
[[users]]
name = "flooder"
arrivals = "flood"
jobs_each = 150
start_seconds = 5
"""


def flood(*, lost: float = 0.0, failures: str = "") -> Spec:
    return load_spec(FLOOD.format(lost=lost, failures=failures))


def outline(run: Run) -> tuple[object, ...]:
    return run.ledger.waits("user"), run.ledger.ends, run.dispatches, run.records, run.ledger.served


@pytest.fixture(scope="module")
def plain() -> Run:
    return simulate(flood())


def test_the_same_specification_gives_the_same_run(plain: Run) -> None:
    assert outline(simulate(flood())) == outline(plain)


def test_every_job_ends(plain: Run) -> None:
    assert plain.left == 0
    assert plain.ledger.ends == {"succeeded": len(plain.ledger)}
    assert plain.dispatches == 3 * len(plain.ledger)


def test_slots_are_busy_while_work_waits(plain: Run) -> None:
    """The flood keeps four slots busy: bins in the middle hold nearly all that four slots can do."""
    bins: dict[int, float] = {}
    for (kind, _, place), seconds in plain.ledger.served.items():
        if kind == "lane":
            bins[place] = bins.get(place, 0.0) + seconds
    places = sorted(bins)
    middle = places[len(places) // 4 : len(places) // 2]
    served = sum(bins[place] for place in middle) / (len(middle) * plain.ledger.bin_ms / 1000)
    assert served == pytest.approx(4.0, rel=0.03)


def test_neighbours_of_a_flood_hardly_wait_and_the_flooder_does(plain: Run) -> None:
    waits = plain.ledger.waits("user")
    for number in range(3):
        neighbour = waits[f"neighbour-{number}"]
        assert neighbour.p50 is not None
        assert neighbour.p50 < 0.5
    assert waits["flooder"].p50 is not None
    assert waits["flooder"].p50 > 20


def test_interactive_jobs_wait_least(plain: Run) -> None:
    lanes = plain.ledger.waits("lane")
    assert lanes["interactive"].p90 is not None
    assert lanes["standard"].p90 is not None
    assert lanes["interactive"].p90 < lanes["standard"].p90


def test_failures_are_tried_again_and_some_end_jobs() -> None:
    run = simulate(flood(failures="[failures]\ntransient = 0.1\npermanent = 0.02\n"))
    assert run.left == 0
    assert set(run.ledger.ends) == {"succeeded", "failed"}
    assert 0 < run.ledger.ends["failed"] < 0.2 * len(run.ledger)
    assert run.dispatches > 3 * run.ledger.ends["succeeded"]


def test_lost_slots_lose_no_job() -> None:
    run = simulate(flood(lost=60.0))
    assert run.left == 0
    assert sum(run.ledger.ends.values()) == len(run.ledger)
    assert run.dispatches > 3 * run.ledger.ends["succeeded"]


def test_lost_slots_come_in_order_and_come_back() -> None:
    found = list(islice(losses(flood(lost=600.0)), 60))
    assert [at for at, _ in found] == sorted(at for at, _ in found)
    epochs = dict.fromkeys(range(4), 1)
    up = set(epochs)
    for _, entry in found:
        slot, epoch = entry["slot"]["slot"], entry["slot"]["epoch"]
        if entry["kind"] == "slot_lost":
            assert slot in up
            assert epoch == epochs[slot]
            up.remove(slot)
        else:
            assert slot not in up
            assert epoch == epochs[slot] + 1
            epochs[slot] = epoch
            up.add(slot)


def test_jobs_that_nobody_serves_are_told() -> None:
    """A version that no slot loads: the run gives up instead of ticking for ever."""
    text = FLOOD.format(lost=0.0, failures="").replace("slots = 4", 'slots = 4\nversions = ["none"]')
    run = simulate(load_spec(text))
    assert run.left == len(run.ledger)
    assert run.dispatches == 0


def test_service_times_depend_on_the_job_alone() -> None:
    spec = flood(failures="[failures]\ntransient = 0.3\n")
    ready = next(entry for _, entry in arrivals(spec))["ready"]
    item = {**ready, "stage": "generate", "stage_index": 0, "attempt": 1}
    assert MadeWork(spec).outcome(item) == MadeWork(spec).outcome(item)
    assert MadeWork(spec).outcome(item) != MadeWork(spec).outcome({**item, "attempt": 2})


@pytest.mark.parametrize(
    ("shape", "spread"), [("fixed", 0.5), ("uniform", 0.5), ("exponential", 0.5), ("lognormal", 0.5)]
)
def test_service_times_have_their_mean(shape: str, spread: float) -> None:
    text = FLOOD.format(lost=0.0, failures="").replace(
        "mean_seconds = 0.5", f'mean_seconds = 0.5\nshape = "{shape}"\nspread = {spread}'
    )
    spec = load_spec(text)
    work = MadeWork(spec)
    jobs = [entry["ready"] for _, entry in arrivals(spec)]
    seconds = [work.outcome({**j, "stage": "generate", "stage_index": 0, "attempt": 1}).gpu_seconds for j in jobs]
    assert sum(seconds) / len(seconds) == pytest.approx(0.5, rel=0.15)


def test_zipf_users_are_active_by_their_rank() -> None:
    text = FLOOD.format(lost=0.0, failures="").replace("count = 3", "count = 100\nzipf = 1.0")
    counts: dict[str, int] = {}
    for _, entry in islice(arrivals(load_spec(text)), 2_000):
        user = entry["ready"]["user_id"]
        counts[user] = counts.get(user, 0) + 1
    assert max(counts, key=lambda user: counts[user]) in ("flooder", "neighbour-0")


def test_bursts_come_from_one_user_at_a_time() -> None:
    text = FLOOD.format(lost=0.0, failures="").replace(
        "load = 0.4", 'arrivals = "bursts"\nburst_jobs = 7\nevery_seconds = 10'
    )
    ready = [(at, entry["ready"]["user_id"]) for at, entry in arrivals(load_spec(text))]
    bursts = {at: {user for when, user in ready if when == at and user != "flooder"} for at, _ in ready}
    assert all(len(users) <= 1 for users in bursts.values())
    assert sum(user != "flooder" for _, user in ready) == 7 * 7


@pytest.mark.parametrize("name", ["run.svg", "run.png"])
def test_the_same_run_gives_the_same_picture(plain: Run, tmp_path: Path, name: str) -> None:
    pictures = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        plot_run(plain.ledger, plain.spec.capacity, tmp_path / folder / name, "a title")
        pictures.append((tmp_path / folder / name).read_bytes())
    assert pictures[0] == pictures[1]
    assert len(pictures[0]) > 5_000


def test_another_ending_is_refused(plain: Run, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.png"):
        plot_run(plain.ledger, 4, tmp_path / "run.bmp", "a title")
