"""Admission's verdicts, one rule at a time."""

from typing import Any

import pytest

from schemas.pipelines import PIPELINES
from streams.policy.admission import KEY_LIFE_MS, LOAD_LIFE_MS
from streams.policy.bucket import Limit
from streams.policy.config import load_policy
from streams.policy.submissions import Standing, standing_of
from streams.policy.validation import MAX_AHEAD_MS, MAX_REQUEST_BYTES, Sender, fault
from tests.support.admission import CLOSED, COMMANDS, PRO, Shell, job_id, request

ARTEFACT = {"role": "field", "sha256": "0" * 64, "bytes": 1, "media_type": "application/octet-stream"}


def sender(**changes: Any) -> Sender:
    known: dict[str, Any] = {"key": "ann", "size_bytes": 300, "at_ms": 0, "operator": True, "owns": lambda _: False}
    return Sender(**{**known, **changes})


def resume(uri: str, stage: str = "retopology") -> dict[str, Any]:
    return {"stage": stage, "artefacts": [{**ARTEFACT, "uri": uri}]}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"job_id": "7"}, "job_id"),
        ({"workflow": "image-to-3d"}, "workflow"),
        ({"pipeline_id": "none"}, "pipeline_id"),
        ({"model_version": "0"}, "model_version"),
        ({"prompt": None}, "prompt"),
        ({"prompt": "  "}, "prompt"),
        ({"prompt": "x" * 2001}, "prompt"),
        ({"formats": []}, "formats"),
        ({"formats": ["fbx"]}, "formats"),
        ({"parameters": {str(n): "" for n in range(33)}}, "parameters"),
        ({"parameters": {"a": "x" * 1001}}, "parameters"),
        ({"priority": 0}, "priority"),
        ({"priority": 6}, "priority"),
        ({"texture_size": 1000}, "texture_size"),
        ({"run_at": MAX_AHEAD_MS + 1}, "run_at"),
        ({"debounce_key": "a"}, "debounce_seconds"),
        ({"debounce_seconds": 1.0}, "debounce_key"),
        ({"debounce_key": "", "debounce_seconds": 1.0}, "debounce_key"),
        ({"debounce_key": "a", "debounce_seconds": 0.0}, "debounce_seconds"),
        ({"debounce_key": "a", "debounce_seconds": float("nan")}, "debounce_seconds"),
        ({"start_within_seconds": 0.0}, "start_within_seconds"),
        ({"finish_within_seconds": -1.0}, "finish_within_seconds"),
        ({"finish_within_seconds": float("inf")}, "finish_within_seconds"),
        ({"max_queue_depth": -1}, "max_queue_depth"),
        ({"retry_of": "7"}, "retry_of"),
        ({"resume": resume(f"file:///o/{job_id(1)}/generate/1/ab")}, "retry_of"),
        ({"retry_of": job_id(1), "resume": resume(f"file:///o/{job_id(2)}/generate/1/ab")}, "resume"),
        ({"retry_of": job_id(1), "resume": resume(f"file:///o/{job_id(1)}/../{job_id(2)}/ab")}, "resume"),
        ({"retry_of": job_id(1), "resume": resume(f"file:///o/{job_id(1)}/ab", "none")}, "resume"),
    ],
)
def test_a_fault_names_its_field(changes: dict[str, Any], field: str) -> None:
    found = fault(request(**changes), "text-to-3d", sender())
    assert found is not None
    assert found.startswith(field + ":")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"texture_size": 4096, "priority": 1, "lane": "batch", "max_queue_depth": 0},
        {"run_at": MAX_AHEAD_MS},
        {"run_at": -5},
        {"debounce_key": "a", "debounce_seconds": 0.5},
        {"start_within_seconds": 0.1, "finish_within_seconds": 3600.0},
        {"retry_of": job_id(1)},
        {"retry_of": job_id(1), "resume": resume(f"s3://b/jobs/{job_id(1)}/generate/1/ab")},
    ],
)
def test_good_requests_have_no_fault(changes: dict[str, Any]) -> None:
    assert fault(request(**changes), "text-to-3d", sender()) is None


@pytest.mark.parametrize("key", [None, "bob", ""])
def test_the_key_must_be_the_user(key: str | None) -> None:
    assert str(fault(request(), "text-to-3d", sender(key=key))).startswith("user_id:")


def test_a_record_of_any_size_is_no_request() -> None:
    assert str(fault(request(), "text-to-3d", sender(size_bytes=MAX_REQUEST_BYTES + 1))).startswith("request:")


@pytest.mark.parametrize("changes", [{"retry_of": job_id(1)}, {"resume": resume(f"file:///o/{job_id(1)}/ab")}])
def test_only_operators_repeat_jobs(changes: dict[str, Any]) -> None:
    assert "only operators" in str(fault(request(**changes), "text-to-3d", sender(operator=False)))


def test_a_job_that_was_repeated_before_has_artefacts_of_its_forebears() -> None:
    body = request(retry_of=job_id(2), resume=resume(f"file:///o/{job_id(1)}/generate/1/ab"))
    assert fault(body, "text-to-3d", sender(owns=lambda job: job == job_id(1))) is None


def test_a_repeat_is_a_duplicate_and_costs_nothing() -> None:
    shell = Shell()
    assert shell.ask(request(), 1_000).outcome == "accepted"
    before = shell.ledger.users["ann"]
    assert shell.ask(request(), 2_000).outcome == "duplicate"
    assert shell.ledger.users["ann"] == before


def test_the_same_key_with_another_body_is_a_conflict() -> None:
    shell = Shell()
    shell.ask(request(), 1_000)
    verdict = shell.ask(request(prompt="a table"), 2_000)
    assert (verdict.outcome, verdict.code) == ("conflict", "idempotency_conflict")


def test_a_key_is_bound_for_a_day_and_as_long_as_its_job_lives() -> None:
    shell = Shell()
    shell.ask(request(), 0)
    assert shell.ask(request(), KEY_LIFE_MS + 1).outcome == "duplicate"
    shell.append(CLOSED, KEY_LIFE_MS + 2, [job_id(7)])
    assert shell.ask(request(), KEY_LIFE_MS + 3).outcome == "accepted"
    shell.append(CLOSED, KEY_LIFE_MS + 4, [job_id(7)])
    assert shell.ask(request(), 2 * KEY_LIFE_MS).outcome == "duplicate"


def test_a_refusal_by_the_limit_leaves_the_key_free() -> None:
    shell = Shell()
    for number in range(3):
        assert shell.ask(request(job=number), 0).outcome == "accepted"
    refused = shell.ask(request(), 0)
    assert (refused.outcome, refused.code, refused.limit) == ("rejected", "rate_limit", "requests")
    assert refused.retry_after_ms == 1_000
    assert shell.ask(request(), 1_000).outcome == "accepted"


def test_a_keys_own_limit_is_named() -> None:
    limits = {"k1": Limit(requests_per_minute=6, burst_requests=1)}
    shell = Shell(Standing(limit=Limit(requests_per_minute=60, burst_requests=3), key_limits=limits))
    assert shell.ask(request(job=1, key_id="k1"), 0).outcome == "accepted"
    refused = shell.ask(request(job=2, key_id="k1"), 0)
    assert (refused.code, refused.limit, refused.retry_after_ms) == ("rate_limit", "key_requests", 10_000)
    # The refusal took nothing from the user's bucket, and a key without a limit of its own has only that.
    assert [shell.ask(request(job=n, key_id="k2"), 0).limit for n in (3, 4, 5)] == [None, None, "requests"]


def test_the_backlog_is_capped_until_jobs_end() -> None:
    shell = Shell(Standing(limit=Limit(requests_per_minute=60, burst_requests=9), max_backlog=2))
    assert shell.ask(request(job=1), 0).outcome == "accepted"
    assert shell.ask(request(job=2, run_at=60_000), 0).held is not None
    refused = shell.ask(request(job=3), 0)
    assert (refused.code, refused.limit, refused.retry_after_ms) == ("backlog_limit", "backlog", None)
    for _ in range(2):  # told twice, counted once; a job that nobody knows changes nothing
        shell.append(CLOSED, 10, [job_id(1), job_id(99)])
    assert shell.ask(request(job=4), 20).outcome == "accepted"
    assert shell.ask(request(job=5), 20).limit == "backlog"
    shell.append(COMMANDS, 30, job_id(2))
    assert shell.ask(request(job=6), 40).outcome == "accepted"


def test_a_newer_request_takes_the_place_of_the_one_that_it_replaces() -> None:
    shell = Shell(Standing(limit=Limit(requests_per_minute=60, burst_requests=9), max_backlog=1))
    assert shell.ask(request(job=1, debounce_key="a", debounce_seconds=5.0), 0).held is not None
    assert shell.ask(request(job=2, debounce_key="b", debounce_seconds=5.0), 1).limit == "backlog"
    assert shell.ask(request(job=3, debounce_key="a", debounce_seconds=5.0), 2).held is not None


@pytest.mark.parametrize(
    ("tier", "lane", "age_ms", "level", "refused"),
    [
        ("free", "standard", 0, 3, True),
        ("pro", "batch", 0, 3, True),
        ("pro", "standard", 0, 3, False),
        ("free", "standard", 0, 2, False),
        ("free", "standard", LOAD_LIFE_MS + 1, 3, False),
    ],
)
def test_an_overloaded_domain_refuses_some(tier: str, lane: str, age_ms: int, level: int, refused: bool) -> None:
    load = {
        "level": level, "at": 100_000 - age_ms, "refused_tiers": ["free"], "refused_lanes": ["batch"],
        "retry_after_seconds": 12.5,
    }  # fmt: skip
    verdict = Shell(Standing(tier=tier), load).ask(request(lane=lane), 100_000)
    assert (verdict.code, verdict.limit) == (("overloaded", "load") if refused else ("ok", None))
    assert verdict.retry_after_ms == (12_500 if refused else None)


def test_scopes_come_from_the_standing() -> None:
    verdict = Shell().ask(request(pipeline_id="synthetic"), 0)
    assert (verdict.outcome, verdict.code) == ("rejected", "forbidden")


def test_the_request_goes_on_as_it_came_and_with_the_users_own_tier() -> None:
    ready = Shell().ask(request(quality="draft", start_within_seconds=2.0), 500).ready
    assert ready is not None
    assert (ready["request"], ready["tier"], ready["lane"]) == (b"raw", "pro", "interactive")
    assert (ready["stage"], ready["start_by"], ready["finish_by"]) == ("generate", 2_500, None)


def test_a_repeated_job_goes_on_where_the_dead_one_stopped() -> None:
    found = resume(f"file:///o/{job_id(1)}/generate/1/ab", "texture")
    ready = Shell().ask(request(retry_of=job_id(1), resume=found), 0).ready
    assert ready is not None
    assert (ready["stage"], ready["artefacts"], ready["retry_of"]) == ("texture", found["artefacts"], job_id(1))


def test_an_unknown_user_is_served_as_free() -> None:
    policy = load_policy("[tiers.free]\nmax_backlog = 3\n")
    standing = standing_of(None, policy)
    assert (standing.tier, standing.scopes, standing.max_backlog) == ("free", frozenset({"jobs"}), 3)


def test_a_tenants_own_backlog_goes_before_the_tiers() -> None:
    tenant: dict[str, Any] = {
        "tier": "pro", "weight": 1.0, "requests_per_minute": 60.0, "burst_requests": 10, "scopes": ["jobs"],
        "keys": [], "max_backlog": None,
    }  # fmt: skip
    assert standing_of(tenant).max_backlog == 5_000
    assert standing_of({**tenant, "max_backlog": 7}).max_backlog == 7
    assert standing_of({**tenant, "tier": "unheard-of"}).max_backlog == 100


def test_every_pipelines_stages_can_be_resumed() -> None:
    for pipeline in PIPELINES.values():
        for stage in pipeline.stages:
            body = request(
                pipeline_id=pipeline.pipeline_id, retry_of=job_id(1), resume={"stage": stage.name, "artefacts": []}
            )  # fmt: skip
            assert fault(body, pipeline.workflow, sender()) is None


def test_a_claimed_tier_changes_nothing() -> None:
    assert PRO.tier == "pro"
    verdict = Shell(Standing()).ask(request(tier="enterprise"), 0)
    assert verdict.ready is not None
    assert verdict.ready["tier"] == "free"
