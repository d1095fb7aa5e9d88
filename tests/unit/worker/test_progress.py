"""One percentage over the whole job."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.progress import INTERVAL_MS, ProgressMeter, stage_span
from schemas.pipelines import PIPELINES
from tests.unit.worker.items import item


@pytest.mark.parametrize("pipeline_id", sorted(PIPELINES))
def test_spans_follow_each_other_from_0_to_1(pipeline_id: str) -> None:
    count = len(PIPELINES[pipeline_id].stages)
    spans = [stage_span(pipeline_id, index, count) for index in range(count)]
    assert spans[0][0] == 0
    assert spans[-1][1] == pytest.approx(1)
    for before, after in pairwise(spans):
        assert before[1] == pytest.approx(after[0])


def test_an_unknown_pipeline_has_equal_parts() -> None:
    assert stage_span("other", 1, 4) == (0.25, 0.5)
    assert stage_span("synthetic", 1, 2) == (0.5, 1.0)


def test_the_first_word_is_told_at_once_and_the_next_after_half_a_second() -> None:
    meter = ProgressMeter(item(stage="retopology"))
    assert meter.due(0) is None
    meter.tell(0.5, "half")
    assert meter.due(1_000) == (50.0, "half")
    meter.tell(0.75, "more")
    assert meter.due(1_000 + INTERVAL_MS - 1) is None
    meter.tell(1.0, "all")
    assert meter.due(1_000 + INTERVAL_MS) == (60.0, "all")
    assert meter.due(10_000) is None


@given(st.lists(st.tuples(st.floats(-1, 2), st.integers(0, 2_000)), max_size=30))
def test_it_never_falls_and_never_hurries(words: list[tuple[float, int]]) -> None:
    meter = ProgressMeter(item(stage="generate"))
    now, told = 0, []
    for fraction, passed in words:
        now += passed
        meter.tell(fraction, "m")
        if (due := meter.due(now)) is not None:
            told.append((now, due[0]))
    assert all(0 <= percent <= 40 + 1e-9 for _, percent in told)
    for (at, percent), (later, more) in pairwise(told):
        assert later - at >= INTERVAL_MS
        assert more >= percent
