"""Admission's records stay under the size limit, in order, and hold whatever their senders gave."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.codec import MAX_MESSAGE_BYTES, Codec
from streams.agents.admission_records import answer, answer_records, inbox_records
from streams.policy.ready import stage_ready
from streams.policy.submissions import Standing, Verdict
from tests.support.admission import request

CODEC = Codec()


def entry(size: int, job_id: str) -> dict[str, Any]:
    ready = stage_ready(request(job_id=job_id), b"x" * size, tier="free", at_ms=0)
    return {"kind": "stage_ready", "at": 0, "ready": ready}


@settings(max_examples=30)
@given(sizes=st.lists(st.sampled_from([200, 5_000, 60_000]), max_size=40))
def test_inbox_records_hold_all_entries_in_order(sizes: list[int]) -> None:
    records = inbox_records(CODEC, {"main": [entry(size, str(n)) for n, size in enumerate(sizes)]})
    found = [e["ready"]["job_id"] for r in records for e in CODEC.decode(r.value, "inbox_batch")["entries"]]
    assert found == [str(n) for n in range(len(sizes))]
    assert all(len(record.value or b"") < MAX_MESSAGE_BYTES for record in records)


@settings(max_examples=30)
@given(lengths=st.lists(st.sampled_from([4, 300, 15_000]), max_size=60), letter=st.sampled_from("aä愛𝄞"))
def test_answers_of_any_length_fit(lengths: list[int], letter: str) -> None:
    answers = []
    for n, length in enumerate(lengths):
        verdict = Verdict(outcome="rejected", code="invalid_request", detail=letter * min(length, 300))
        answers.append(answer(request(request_id=f"{n}" + letter * length), verdict, Standing(), 0))
    records = answer_records(CODEC, answers)
    found = [a for r in records for a in CODEC.decode(r.value, "admission_answers")["answers"]]
    assert [a["request_id"] for a in found] == [a["request_id"] for a in answers]
    assert all(len(record.value or b"") < MAX_MESSAGE_BYTES for record in records)


def test_many_requests_share_few_records() -> None:
    assert len(inbox_records(CODEC, {"main": [entry(250, str(n)) for n in range(500)]})) <= 4
    assert inbox_records(CODEC, {}) == []
