"""What is forgotten, what is kept, and which rows are put together."""

from streams.policy.admission import KEY_LIFE_MS, Ledger
from streams.policy.admission_rows import RELEASED, Segment, UserRow, decode_segment, encode_row
from streams.policy.bucket import Limit
from streams.policy.segments import (
    GATHER_ITEMS,
    GATHER_SEGMENTS,
    MAX_ITEMS_A_SWEEP,
    REFUSAL_LIFE_MS,
    Extent,
    extent,
    rewrite,
    sweep_plan,
)
from streams.policy.submissions import Standing
from tests.support.admission import CLOSED, REQUESTS, Shell, job_id, request

DAY = KEY_LIFE_MS
WIDE = Standing(limit=Limit(requests_per_minute=60, burst_requests=100), max_backlog=1_000)


def full(_user: str, _row: UserRow) -> bool:
    return True


def empty(_user: str, _row: UserRow) -> bool:
    return False


def swept(shell: Shell, now_ms: int, is_full: bool = True) -> None:
    """Sweeps the rows of a shell, and begins a new life from them."""
    named = {str(n): decode_segment(row) for n, row in enumerate(shell.segments)}
    kept = []
    for keys in sweep_plan({key: extent(segment) for key, segment in named.items()}, now_ms):
        found = rewrite(shell.ledger, [named.pop(key) for key in keys], now_ms, full if is_full else empty)
        kept += [found] if found is not None else []
    shell.segments = [encode_row(segment) for segment in [*named.values(), *kept]]
    known = set(shell.ledger.jobs), dict(shell.ledger.users), dict(shell.ledger.backlog), set(shell.ledger.refused)
    shell.restart()
    after = shell.ledger
    assert (set(after.jobs), after.users, after.backlog, set(after.refused)) == known


def test_ended_jobs_are_forgotten_after_a_day_and_others_are_not() -> None:
    shell = Shell(WIDE)
    for number in (1, 2):
        shell.ask(request(job=number), number)
    shell.ask(request(job=3, run_at=20 * DAY), 3)
    shell.append(CLOSED, 10, [job_id(1)])
    shell.run()
    swept(shell, DAY - 1)
    assert len(shell.ledger.jobs) == 3
    swept(shell, DAY + 20)
    assert set(shell.ledger.jobs) == {f"ann/{job_id(2)}", f"ann/{job_id(3)}"}
    assert not shell.ledger.users
    swept(shell, 3 * DAY)
    assert shell.ledger.backlog == {"ann": 2}
    shell.tick(20 * DAY)
    assert list(shell.readies) == [f"ann/{job_id(number)}" for number in (1, 2, 3)]


def test_a_released_job_stays_released_when_its_rows_are_rewritten() -> None:
    shell = Shell(WIDE)
    shell.ask(request(job=1, run_at=1_000), 0)
    shell.tick(1_000)
    swept(shell, DAY + 2_000)
    assert shell.ledger.jobs[f"ann/{job_id(1)}"].state == "open"
    assert [end.kind for row in shell.segments for end in decode_segment(row).ends] == [RELEASED]
    shell.append(CLOSED, DAY + 3_000, [job_id(1)])
    shell.run()
    swept(shell, 3 * DAY)
    swept(shell, 5 * DAY)
    assert not shell.ledger.jobs
    assert not shell.segments


def test_a_bucket_that_is_not_full_is_kept() -> None:
    shell = Shell(Standing(limit=Limit(requests_per_minute=0, burst_requests=1)))
    shell.ask(request(job=1), 0)
    shell.append(CLOSED, 1, [job_id(1)])
    shell.run()
    swept(shell, 2 * DAY, is_full=False)
    assert shell.ask(request(job=2), 2 * DAY).limit == "requests"


def test_a_users_newest_row_wins_over_any_that_was_left_behind() -> None:
    """A bucket was dropped as full and begins anew: older rows of the user may still stand somewhere."""
    shell = Shell(WIDE)
    for number in range(5):
        shell.ask(request(job=number), number)
    newest = shell.ledger.users.pop("ann")
    shell.ask(request(job=9), 100)
    assert shell.ledger.users["ann"].revision > newest.revision
    shell.restart()
    assert shell.ledger.users["ann"].bucket.at_ms == 100


def test_small_segments_are_gathered_when_they_are_settled() -> None:
    stored = {str(n): Extent(REQUESTS, n, n, 10) for n in range(GATHER_SEGMENTS)}
    assert sweep_plan(stored, REFUSAL_LIFE_MS) == []
    assert sweep_plan(stored, REFUSAL_LIFE_MS + 100) == [[str(n) for n in range(GATHER_SEGMENTS)]]
    del stored["0"]
    assert sweep_plan(stored, REFUSAL_LIFE_MS + 100) == []
    large = {str(n): Extent(REQUESTS, n, n, GATHER_ITEMS) for n in range(100)}
    assert sweep_plan(large, REFUSAL_LIFE_MS + 100) == []


def test_a_sweep_stays_short() -> None:
    stored = {str(n): Extent(REQUESTS, n, n, 500) for n in range(1_000)}
    plan = sweep_plan(stored, REFUSAL_LIFE_MS + 2_000)
    assert 0 < sum(500 * len(group) for group in plan) <= MAX_ITEMS_A_SWEEP


def test_refusals_are_forgotten_when_their_records_cannot_come_again() -> None:
    shell = Shell(Standing(limit=Limit(requests_per_minute=0.001, burst_requests=1)))
    for number in range(GATHER_SEGMENTS + 1):
        shell.ask(request(job=number), number)
    assert len(shell.ledger.refused) == GATHER_SEGMENTS
    swept(shell, REFUSAL_LIFE_MS + 100, is_full=False)
    assert not shell.ledger.refused


def test_nothing_new_makes_no_row() -> None:
    ledger = Ledger()
    assert ledger.segment(REQUESTS, 0) is None
    assert rewrite(ledger, [Segment(topic=REQUESTS, oldest_ms=0, newest_ms=0)], DAY, full) is None
