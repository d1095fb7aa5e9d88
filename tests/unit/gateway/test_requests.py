"""The gateway and admission agree: what the one lets through, the other does not find wrong."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.auth import Principal
from gateway.problems import Problem
from gateway.requests import request_record
from gateway.tables import lane_of
from gateway.validation import MAX_DEBOUNCE_SECONDS, MAX_QUEUE_DEPTH, MAX_WITHIN_SECONDS, TEXTURE_SIZES, parse_job
from schemas.codec import Codec, Record
from streams.policy import validation as admissions
from streams.policy.ready import lane_of as admissions_lane

CODEC = Codec()
NOW_MS = 1_700_000_000_000
JOB_ID = "5f1c2d1e-3b0a-4a58-9d55-6f5c6f0c1a2b"
ADA = Principal(
    user_id="ada", key_id="12345678", tier="pro", scopes=frozenset({"jobs", "synthetic"}), requests_per_minute=60.0
)
within = st.floats(0, MAX_WITHIN_SECONDS * 1.01, allow_nan=False) | st.just(MAX_WITHIN_SECONDS)
wishes = st.fixed_dictionaries(
    {"workflow": st.just("text-to-3d"), "prompt": st.text(min_size=1, max_size=30)},
    optional={
        "pipeline_id": st.sampled_from(["assembly", "synthetic"]),
        "seed": st.integers(0, 2**53 - 1),
        "quality": st.sampled_from(["draft", "standard", "high"]),
        "parameters": st.dictionaries(st.text(min_size=1, max_size=64), st.text(max_size=256), max_size=4),
        "lane": st.sampled_from(["interactive", "standard", "batch"]),
        "priority": st.integers(0, 6),
        "texture_size": st.sampled_from((*TEXTURE_SIZES, 1, 1000)),
        "run_at": st.sampled_from(["2023-11-14T22:13:20Z", "2023-12-14T22:13:20Z", "2023-12-14T22:13:21Z"]),
        "on_limit": st.sampled_from(["reject", "wait"]),
        "debounce": st.fixed_dictionaries(
            {"key": st.text(max_size=70), "seconds": st.floats(0, MAX_DEBOUNCE_SECONDS * 1.01, allow_nan=False)}
        ),
        "start_within_seconds": within,
        "finish_within_seconds": within,
        "max_queue_depth": st.integers(-1, MAX_QUEUE_DEPTH + 1),
    },
)


def record_of(wish: dict[str, Any]) -> Record | None:
    """The record as admission reads it; None for a wish that the gateway refuses."""
    try:
        body, pipeline = parse_job(json.dumps(wish).encode())
        made = request_record(body, pipeline, ADA, JOB_ID, NOW_MS)
    except Problem:
        return None
    return CODEC.decode_strict(CODEC.encode("job_requested", made | {"request_id": "r", "traceparent": None}))


@settings(deadline=None, max_examples=200)
@given(wishes)
def test_what_the_gateway_lets_through_admission_does_not_find_wrong(wish: dict[str, Any]) -> None:
    record = record_of(wish)
    if record is None:
        return
    sender = admissions.Sender(key="ada", size_bytes=1_000, at_ms=NOW_MS, operator=False, owns=lambda _: False)
    assert admissions.fault(record, "text-to-3d", sender) is None
    assert lane_of(record) == admissions_lane(record)


def test_the_same_wish_is_the_same_record() -> None:
    wish = {"workflow": "text-to-3d", "prompt": "a stool", "run_at": "2023-11-20T00:00:00Z", "formats": ["glb", "glb"]}
    body, pipeline = parse_job(json.dumps(wish).encode())
    first, again = (request_record(body, pipeline, ADA, JOB_ID, now_ms) for now_ms in (NOW_MS, NOW_MS + 5_000))
    assert first | {"created_at": 0} == again | {"created_at": 0}


def test_nobody_repeats_jobs_or_raises_a_tier_over_http() -> None:
    record = record_of({"workflow": "text-to-3d", "prompt": "a stool"})
    assert record is not None
    assert (record["tier"], record["retry_of"], record["resume"]) == (None, None, None)
