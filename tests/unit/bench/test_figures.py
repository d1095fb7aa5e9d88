"""What the benchmark makes of what submitter and collector saw."""

import pytest

from gateway.bench.collector import Collected
from gateway.bench.noop import percentile, phase_figures
from gateway.bench.submitter import Load, Submitted
from gateway.bench.usage import Usage

SECOND = 1_000_000_000


def figures(ended: dict[str, tuple[int, str]], repeated: int = 0) -> dict[str, object]:
    return phase_figures(
        Load(name="x", jobs=4, rate_per_second=None),
        Submitted(
            began=10 * SECOND,
            intended={"a": 10 * SECOND, "b": 10 * SECOND, "c": 11 * SECOND, "d": 11 * SECOND},
            seconds=1.0,
            repeats=0,
            problem=None,
        ),
        Collected(ended=ended, repeated=repeated, sink_stored=True),
        Usage(roles={"gateway": 0.5, "broker": 1.5, "collector": 1.0}, machine=4.0, at=2.0),
    )


def test_latency_counts_from_the_intended_time() -> None:
    ended = dict.fromkeys("abcd", (12 * SECOND, "succeeded"))
    found = figures(ended)
    assert (found["p50_ms"], found["p99_ms"]) == (2000.0, 2000.0)
    assert found["jobs_per_s"] == 2.0


def test_cpu_counts_every_role_but_the_collector() -> None:
    found = figures(dict.fromkeys("abcd", (12 * SECOND, "succeeded")))
    assert found["jobs_per_cpu_s"] == 2.0
    assert found["cpu_ms_per_job"] == {"broker": 375.0, "gateway": 125.0}
    assert found["collector_cpu_ms_per_job"] == 250.0
    assert (found["cpu_cores"], found["other_cores"]) == (1.0, 0.5)


def test_lost_repeated_and_failed_jobs_are_told() -> None:
    found = figures(
        {"a": (12 * SECOND, "failed"), "b": (12 * SECOND, "succeeded"), "stranger": (1, "failed")}, repeated=3
    )
    assert (found["lost"], found["repeated"], found["not_succeeded"]) == (2, 3, 1)


@pytest.mark.parametrize(("share", "value"), [(0.0, 1.0), (0.5, 51.0), (0.99, 100.0), (1.0, 100.0)])
def test_percentiles(share: float, value: float) -> None:
    assert percentile([float(n) for n in range(1, 101)], share) == value


def test_no_value_has_no_percentile() -> None:
    assert percentile([], 0.5) is None
