"""Bodies and headers of POST /v1/jobs."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.problems import Problem
from gateway.validation import (
    MAX_SEED,
    CancelBody,
    ChangeBody,
    JobBody,
    idempotency_key,
    parse_cancel,
    parse_change,
    parse_job,
    run_at_ms,
)
from schemas.pipelines import PIPELINES

GOOD: dict[str, Any] = {"workflow": "text-to-3d", "prompt": "a tall crimson armchair"}


def parse(**more: object) -> JobBody:
    return parse_job(json.dumps({**GOOD, **more}).encode())[0]


def refusal(data: bytes) -> Problem:
    with pytest.raises(Problem) as caught:
        parse_job(data)
    return caught.value


def test_the_least_body_gets_the_defaults() -> None:
    body, pipeline = parse_job(json.dumps(GOOD).encode())
    assert pipeline is PIPELINES["assembly"]
    assert (body.quality, body.formats, body.parameters, body.job_type) == ("standard", ["glb"], {}, "model")
    assert body.seed is None
    assert body.model_version is None


def test_every_field_is_taken() -> None:
    given_body = {
        "pipeline_id": "synthetic",
        "model_version": "1",
        "seed": MAX_SEED,
        "quality": "high",
        "formats": ["glb"],
        "parameters": {"seconds.generate": "0.5"},
        "job_type": "model",
        "lane": "batch",
        "priority": 1,
        "texture_size": 4096,
        "run_at": "2030-01-31T12:00:00Z",
        "on_limit": "wait",
        "start_within_seconds": 30.0,
        "finish_within_seconds": 0.5,
        "max_queue_depth": 0,
    }
    body = parse(**given_body)
    assert {name: getattr(body, name) for name in given_body} == given_body


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"workflow": "text-to-4d"}, "workflow"),
        ({"workflow": 1}, "workflow"),
        ({"prompt": None}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": "  "}, "prompt"),
        ({"prompt": "x" * 2001}, "prompt"),
        ({"prompt": "a\0b"}, "prompt"),
        ({"prompt": "a\x1b[31mb"}, "prompt"),
        ({"prompt": "a\nb"}, "prompt"),
        ({"prompt": "a\u2028b"}, "prompt"),
        ({"prompt": "a\ud800b"}, "prompt"),
        ({"prompt": ["a"]}, "prompt"),
        ({"pipeline_id": "none"}, "pipeline_id"),
        ({"model_version": ""}, "model_version"),
        ({"model_version": "x" * 65}, "model_version"),
        ({"model_version": "0"}, "model_version"),
        ({"seed": -1}, "seed"),
        ({"seed": MAX_SEED + 1}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"seed": True}, "seed"),
        ({"seed": "7"}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"quality": "best"}, "quality"),
        ({"formats": []}, "formats"),
        ({"formats": ["usdz"]}, "formats"),
        ({"formats": ["glb"] * 9}, "formats"),
        ({"formats": "glb"}, "formats"),
        ({"parameters": {str(n): "" for n in range(33)}}, "parameters"),
        ({"parameters": {"a": 1}}, "parameters"),
        ({"parameters": {"": "a"}}, "parameters"),
        ({"parameters": {"a" * 65: "a"}}, "parameters"),
        ({"parameters": {"a": "b" * 257}}, "parameters"),
        ({"parameters": {"a": "b\0"}}, "parameters"),
        ({"job_type": "texture"}, "job_type"),
        ({"lane": "fast"}, "lane"),
        ({"lane": 1}, "lane"),
        ({"priority": 0}, "priority"),
        ({"priority": 6}, "priority"),
        ({"priority": None}, "priority"),
        ({"priority": "1"}, "priority"),
        ({"priority": True}, "priority"),
        ({"texture_size": 1000}, "texture_size"),
        ({"texture_size": "1024"}, "texture_size"),
        ({"texture_size": -1024}, "texture_size"),
        ({"run_at": 1_900_000_000}, "run_at"),
        ({"on_limit": "queue"}, "on_limit"),
        ({"debounce": "x"}, "debounce"),
        ({"debounce": {}}, "debounce.key"),
        ({"debounce": {"key": "x"}}, "debounce.seconds"),
        ({"debounce": {"key": "", "seconds": 1}}, "debounce.key"),
        ({"debounce": {"key": "x" * 65, "seconds": 1}}, "debounce.key"),
        ({"debounce": {"key": "x\n", "seconds": 1}}, "debounce.key"),
        ({"debounce": {"key": "x", "seconds": 0}}, "debounce.seconds"),
        ({"debounce": {"key": "x", "seconds": 1e9}}, "debounce.seconds"),
        ({"debounce": {"key": "x", "seconds": 1, "user": "y"}}, "debounce.user"),
        ({"debounce": {"key": "x", "seconds": 1, "a`b": "y"}}, "debounce.a`b"),
        ({"start_within_seconds": 0}, "start_within_seconds"),
        ({"start_within_seconds": -1}, "start_within_seconds"),
        ({"start_within_seconds": "5"}, "start_within_seconds"),
        ({"finish_within_seconds": 1e12}, "finish_within_seconds"),
        ({"finish_within_seconds": True}, "finish_within_seconds"),
        ({"max_queue_depth": -1}, "max_queue_depth"),
        ({"max_queue_depth": 2**31}, "max_queue_depth"),
        ({"max_queue_depth": 1.5}, "max_queue_depth"),
        ({"retry_of": "somebody"}, "retry_of"),
        ({"resume": {}}, "resume"),
        ({"key_id": "12345678"}, "key_id"),
        ({"user_id": "somebody"}, "user_id"),
        ({"tier": "enterprise"}, "tier"),
        ({"a" * 500: 1}, "a" * 64),
        ({"a\nb": 1}, "a\\nb"),
    ],
)
def test_an_error_names_the_field_and_the_remedy(more: dict[str, object], field: str) -> None:
    problem = refusal(json.dumps({**GOOD, **more}).encode())
    assert (problem.kind.status, problem.code, problem.field) == (422, "invalid_request", field)
    assert problem.suggestion


NOW_MS = 1_700_000_000_000
DAY_MS = 24 * 3_600_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, None),
        ("2023-11-14T22:13:20Z", NOW_MS),
        ("2023-11-14T23:13:20.250+01:00", NOW_MS + 250),
        ("2023-11-14 22:13Z", NOW_MS - 20_000),
        ("2023-11-14T22:13:20,123456789Z", NOW_MS + 123),
        ("1960-01-01T00:00:00Z", 0),
        ("2023-12-14T22:13:20Z", NOW_MS + 30 * DAY_MS),
    ],
)
def test_times_are_read(text: str | None, expected: int | None) -> None:
    assert run_at_ms(text, NOW_MS) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "tomorrow",
        "2023-11-14",
        "2023-11-14T22:13:20",
        "20231114T221320Z",
        "2023-W46-2T22:13:20Z",
        "2023-11-31T22:13:20Z",
        "2023-11-14T25:13:20Z",
        "2023-11-14T22:13:20Zx",
        "2023-11-14T22:13:20Z\n",
        "\u0662023-11-14T22:13:20Z",
        "2023-12-14T22:13:20.001Z",
        "9999-12-31T23:59:59-23:59",
        "0000-01-01T00:00:00Z",
        "1" * 10_000,
    ],
)
def test_times_that_cannot_be_meant_are_refused(text: str) -> None:
    with pytest.raises(Problem) as caught:
        run_at_ms(text, NOW_MS)
    assert (caught.value.code, caught.value.field) == ("invalid_request", "run_at")


@settings(deadline=None)
@given(st.text(max_size=40))
def test_any_text_ends_in_a_time_or_a_problem(text: str) -> None:
    try:
        found = run_at_ms(text, NOW_MS)
    except Problem:
        return
    assert found is not None
    assert 0 <= found <= NOW_MS + 30 * DAY_MS


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (b"{}", "priority"),
        (b'{"priority": null, "paused": null}', "priority"),
        (b'{"priority": 0}', "priority"),
        (b'{"priority": 2.5}', "priority"),
        (b'{"paused": 1}', "paused"),
        (b'{"paused": "true"}', "paused"),
        (b'{"state": "canceled"}', "state"),
        (b'{"tier": "enterprise", "paused": true}', "tier"),
        (b'{"paused": true, "paused": false}', "paused"),
        (b"[]", None),
        (b"", None),
        (b"\xff", None),
    ],
)
def test_changes_that_are_refused(data: bytes, field: str | None) -> None:
    with pytest.raises(Problem) as caught:
        parse_change(data)
    assert (caught.value.kind.status in (400, 422), caught.value.field) == (True, field)


def test_changes_that_are_taken() -> None:
    assert parse_change(b'{"priority": 1}') == ChangeBody(priority=1)
    assert parse_change(b'{"paused": false, "priority": 5}') == ChangeBody(priority=5, paused=False)


def test_a_missing_workflow_is_named() -> None:
    problem = refusal(b'{"prompt": "a stool"}')
    assert (problem.code, problem.field) == ("invalid_request", "workflow")


def test_a_prompt_of_the_full_length_in_any_script_passes() -> None:
    assert parse(prompt="椅" * 2000).prompt == "椅" * 2000
    assert parse(prompt="כיסא אדום")


def test_synthetic_jobs_need_no_prompt() -> None:
    body, pipeline = parse_job(b'{"workflow": "text-to-3d", "pipeline_id": "synthetic"}')
    assert body.prompt is None
    assert pipeline.scope == "synthetic"


def test_image_to_3d_is_not_yet_offered_whatever_else_it_says() -> None:
    problem = refusal(b'{"workflow": "image-to-3d", "image_url": "https://example.com/a.png"}')
    assert (problem.kind.status, problem.code) == (422, "not_offered")
    assert "not yet offered" in problem.detail


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff",
        b'{"seed": NaN}',
        b'{"seed": Infinity}',
        b'{"a": 1, "a": 2}',
        b'{"parameters": {"x": "1", "x": "2"}}',
        b"[" * 100_000,
        b"9" * 5_000,
    ],
)
def test_what_is_no_json_is_refused(data: bytes) -> None:
    problem = refusal(data)
    assert (problem.kind.status, problem.code) == (400, "invalid_json")


def test_a_name_that_stands_twice_is_named() -> None:
    assert refusal(b'{"workflow": "a", "seed": 1, "seed": 2}').field == "seed"


def outcome(data: bytes) -> JobBody | Problem:
    try:
        return parse_job(data)[0]
    except Problem as problem:
        return problem


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_end_in_a_problem(data: bytes) -> None:
    found = outcome(data)
    assert isinstance(found, Problem)
    assert found.kind.status in (400, 422)


scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.floats(-1e9, 1e9)
values = scalars | st.lists(scalars, max_size=3) | st.dictionaries(st.text(max_size=8), scalars, max_size=3)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(JobBody.__struct_fields__), values))
def test_any_values_end_in_a_request_or_a_problem(fields: dict[str, object]) -> None:
    found = outcome(json.dumps({**GOOD, **fields}).encode())
    if isinstance(found, Problem):
        assert (found.code, found.field is not None) == ("invalid_request", True)
    else:
        assert found.seed is None or 0 <= found.seed <= MAX_SEED


def test_no_message_repeats_what_the_user_wrote() -> None:
    for more in (
        {"quality": "canary"},
        {"prompt": "canary\0"},
        {"workflow": "canary"},
        {"formats": ["canary"]},
    ):
        problem = refusal(json.dumps({**GOOD, **more}).encode())
        assert "canary" not in json.dumps(problem.body("id"))


@pytest.mark.parametrize(
    ("values", "expected"),
    [([], None), (["abc"], "abc"), (['"abc"'], "abc"), (["x" * 200], "x" * 200), (["a b"], "a b")],
)
def test_idempotency_keys(values: list[str], expected: str | None) -> None:
    assert idempotency_key(values) == expected


@pytest.mark.parametrize("values", [[""], ['""'], ["x" * 201], ["a", "a"], ["a\x00"], ["é"], ["a\r\nb"]])
def test_bad_idempotency_keys(values: list[str]) -> None:
    with pytest.raises(Problem) as caught:
        idempotency_key(values)
    assert (caught.value.code, caught.value.field) == ("invalid_header", "Idempotency-Key")


def test_a_cancel_needs_no_body() -> None:
    assert parse_cancel(b"") == parse_cancel(b" ") == CancelBody()
    assert parse_cancel(b'{"reason": "wrong"}').reason == "wrong"
    for bad in (b'{"reason": "a\\u0000"}', b'{"why": "x"}', b"[]", b'{"reason": 1}'):
        with pytest.raises(Problem):
            parse_cancel(bad)
