"""Admission's verdicts, one rule at a time, and what a replay after a crash decides."""

import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.policy.admission import KEY_LIFE_MS, Row, Standing, Verdict, decide, fault, standing_of
from streams.policy.bucket import Limit

TOPIC = "requests.text-to-3d"
PRO = Standing(tier="pro", limit=Limit(requests_per_minute=60, burst_requests=3), scopes=frozenset({"jobs"}))


def request(**changes: Any) -> dict[str, Any]:
    return {
        "request_id": "r", "job_id": str(uuid.UUID(int=7)), "user_id": "ann", "tier": None, "job_type": "model",
        "created_at": 0, "workflow": "text-to-3d", "pipeline_id": "assembly", "model_version": None,
        "prompt": "a chair", "seed": 1, "quality": "standard", "formats": ["glb"], "parameters": {},
        "traceparent": None, **changes,
    }  # fmt: skip


class Tables:
    """The two tables as admission keeps them, for one partition."""

    def __init__(self) -> None:
        self.users: dict[str, Row] = {}
        self.jobs: dict[str, Row] = {}

    def ask(self, body: dict[str, Any], offset: int, now_ms: int, standing: Standing = PRO) -> Verdict:
        verdict = decide(
            body, problem=fault(body, body["user_id"], "text-to-3d"), source=(TOPIC, 0, offset), now_ms=now_ms,
            standing=standing, user_row=self.users.get(body["user_id"]), job_row=self.jobs.get(body["job_id"]),
        )  # fmt: skip
        if verdict.job_row is not None:
            self.jobs[body["job_id"]] = verdict.job_row
        if verdict.user_row is not None:
            self.users[body["user_id"]] = verdict.user_row
        return verdict


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
    ],
)
def test_a_fault_names_its_field(changes: dict[str, Any], field: str) -> None:
    found = fault(request(**changes), "ann", "text-to-3d")
    assert found is not None
    assert found.startswith(field + ":")


@pytest.mark.parametrize("key", [None, "bob", ""])
def test_the_key_must_be_the_user(key: str | None) -> None:
    found = fault(request(), key, "text-to-3d")
    assert found is not None
    assert found.startswith("user_id:")


def test_a_good_request_has_no_fault() -> None:
    assert fault(request(), "ann", "text-to-3d") is None


def test_a_repeat_is_a_duplicate_and_costs_nothing() -> None:
    tables = Tables()
    assert tables.ask(request(), 0, 1_000).outcome == "accepted"
    left = tables.users["ann"]["tokens"]
    assert tables.ask(request(), 1, 2_000).outcome == "duplicate"
    assert tables.users["ann"]["tokens"] == left


def test_the_same_key_with_another_body_is_a_conflict() -> None:
    tables = Tables()
    tables.ask(request(), 0, 1_000)
    verdict = tables.ask(request(prompt="a table"), 1, 2_000)
    assert (verdict.outcome, verdict.code) == ("conflict", "idempotency_conflict")


def test_a_key_is_bound_for_a_day() -> None:
    tables = Tables()
    tables.ask(request(), 0, 0)
    assert tables.ask(request(), 1, KEY_LIFE_MS).outcome == "duplicate"
    assert tables.ask(request(), 2, KEY_LIFE_MS + 1).outcome == "accepted"


def test_a_refusal_by_the_limit_leaves_the_key_free() -> None:
    tables = Tables()
    for number in range(3):
        assert tables.ask(request(job_id=str(uuid.UUID(int=number))), number, 0).outcome == "accepted"
    refused = tables.ask(request(), 3, 0)
    assert (refused.outcome, refused.code, refused.retry_after_ms) == ("rejected", "rate_limit", 1000)
    assert request()["job_id"] not in tables.jobs
    assert tables.ask(request(), 4, 1_000).outcome == "accepted"


def test_scopes_come_from_the_standing() -> None:
    verdict = Tables().ask(request(pipeline_id="synthetic"), 0, 0)
    assert (verdict.outcome, verdict.code) == ("rejected", "forbidden")


def test_an_unknown_user_is_served_as_free() -> None:
    assert (standing_of(None).tier, standing_of(None).scopes) == ("free", frozenset({"jobs"}))


@given(
    gaps=st.lists(st.integers(0, 2_000), min_size=1, max_size=30),
    names=st.lists(st.integers(0, 5), min_size=30, max_size=30),
    data=st.data(),
)
def test_a_replay_decides_the_same(gaps: list[int], names: list[int], data: st.DataObject) -> None:
    """Whatever had been applied when the process died: the records that come again get the verdicts that they had."""
    tables, now, first = Tables(), 0, []
    for offset, gap in enumerate(gaps):
        now += gap
        body = request(job_id=str(uuid.UUID(int=names[offset])))
        first.append((body, now, tables.ask(body, offset, now).outcome))
    start = data.draw(st.integers(0, len(gaps) - 1))
    for offset in range(start, len(gaps)):
        body, then, outcome = first[offset]
        again = tables.ask(body, offset, then).outcome
        assert (again == "rejected") == (outcome == "rejected")
