"""How decisions become records."""

from typing import Any

from streams.agents.shell import WORK_BYTES, work_batches
from streams.policy.decisions import Decision, Dispatch, StopWork


def dispatch(slot: int, job: str, *, epoch: int = 1, request_bytes: int = 300) -> Dispatch:
    return Dispatch(slot=slot, epoch=epoch, item={"job_id": job, "request": bytes(request_bytes), "artefacts": []})


def stop(slot: int, job: str) -> StopWork:
    return StopWork(slot=slot, epoch=1, job_id=job, stage="generate", attempt=1)


def jobs(batch: dict[str, Any]) -> list[str]:
    return [item["job_id"] for item in batch["items"]]


def test_a_slot_gets_one_record() -> None:
    decisions: list[Decision] = [dispatch(0, "a"), dispatch(1, "b"), dispatch(0, "c"), stop(0, "a")]
    first, second = work_batches(decisions)
    assert (first["slot"], jobs(first), [c["job_id"] for c in first["controls"]]) == (0, ["a", "c"], ["a"])
    assert (second["slot"], jobs(second), second["controls"]) == (1, ["b"], [])


def test_lives_of_a_slot_are_not_mixed() -> None:
    batches = work_batches([dispatch(0, "a", epoch=1), dispatch(0, "b", epoch=2)])
    assert [(batch["epoch"], jobs(batch)) for batch in batches] == [(1, ["a"]), (2, ["b"])]


def test_large_items_are_spread_over_records_in_order() -> None:
    half = WORK_BYTES // 2
    decisions: list[Decision] = [dispatch(0, name, request_bytes=half) for name in "abc"]
    batches = work_batches([*decisions, stop(0, "a"), dispatch(0, "d", request_bytes=2 * WORK_BYTES)])
    assert [jobs(batch) for batch in batches] == [["a"], ["b"], ["c"], ["d"]]
    assert [len(batch["controls"]) for batch in batches] == [0, 0, 1, 0]
