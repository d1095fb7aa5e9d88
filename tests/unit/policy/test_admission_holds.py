"""Jobs that wait at admission: for their time, for a newer one, for a token; and what their users do with them."""

from streams.policy.bucket import Limit
from streams.policy.holds import Holds
from streams.policy.submissions import Standing
from tests.support.admission import COMMANDS, Shell, job_id, request

WIDE = Standing(limit=Limit(requests_per_minute=60_000, burst_requests=1_000), max_backlog=1_000)


def key(number: int) -> str:
    return f"ann/{job_id(number)}"


def test_a_scheduled_job_goes_on_at_its_time_and_its_deadlines_run_from_there() -> None:
    shell = Shell(WIDE)
    held = shell.ask(request(job=1, run_at=5_000, start_within_seconds=1.0, finish_within_seconds=2.0), 0).held
    assert held is not None
    assert (held.due_ms, held.why) == (5_000, "run_at")
    shell.tick(4_999)
    assert not shell.readies
    shell.tick(5_010)
    [ready] = shell.readies[key(1)]
    assert (ready["start_by"], ready["finish_by"]) == (6_010, 7_010)
    assert not shell.held
    shell.tick(6_000)
    assert len(shell.readies[key(1)]) == 1


def test_a_time_that_is_past_is_now() -> None:
    assert Shell(WIDE).ask(request(run_at=5), 10).held is None


def test_who_waits_for_a_token_goes_on_exactly_then_and_in_order() -> None:
    shell = Shell(Standing(limit=Limit(requests_per_minute=60, burst_requests=1)))
    assert shell.ask(request(job=1, on_limit="wait"), 0).held is None
    dues = [shell.ask(request(job=n, on_limit="wait"), 0).held for n in (2, 3)]
    assert [held.due_ms if held else None for held in dues] == [1_000, 2_000]
    assert shell.ask(request(job=4), 500).retry_after_ms == 2_500  # behind those that wait
    shell.tick(2_000)
    assert list(shell.readies) == [key(1), key(2), key(3)]


def test_a_limit_that_never_refills_holds_nobody() -> None:
    shell = Shell(Standing(limit=Limit(requests_per_minute=0, burst_requests=1)))
    shell.ask(request(job=1, on_limit="wait"), 0)
    assert shell.ask(request(job=2, on_limit="wait"), 0).limit == "requests"


def test_a_newer_request_replaces_the_held_one_and_waits_anew() -> None:
    shell = Shell(WIDE)
    for number, at in ((1, 0), (2, 400), (3, 800)):
        held = shell.ask(request(job=number, debounce_key="a", debounce_seconds=1.0), at).held
        assert held is not None
        assert (held.due_ms, held.why) == (at + 1_000, "debounce")
    other = shell.ask(request(job=4, debounce_key="b", debounce_seconds=1.0), 800)
    assert not other.ended
    shell.tick(1_000)
    assert not shell.readies
    shell.tick(1_800)
    assert sorted(shell.readies) == [key(3), key(4)]
    assert {job: end.reason for job, [end] in shell.canceled.items()} == {key(1): "superseded", key(2): "superseded"}
    assert shell.ledger.backlog == {"ann": 2}


def test_a_repeat_of_the_held_request_is_told_until_when() -> None:
    shell = Shell(WIDE)
    body = request(job=1, run_at=5_000)
    shell.ask(body, 0)
    again = shell.ask(body, 10)
    assert (again.outcome, again.held and again.held.due_ms) == ("duplicate", 5_000)


def test_a_canceled_held_job_ends_here_and_the_scheduler_hears_nothing() -> None:
    shell = Shell(WIDE)
    shell.ask(request(job=1, run_at=5_000), 0)
    for at in (10, 20):
        shell.append(COMMANDS, at, job_id(1))
        shell.run()
    shell.tick(6_000)
    assert not shell.readies
    assert len(shell.canceled[key(1)]) == 1
    assert not shell.cancels_forwarded
    assert not shell.ledger.backlog


def test_a_cancel_that_overtakes_its_job_waits_for_it() -> None:
    shell = Shell(WIDE)
    shell.append(COMMANDS, 0, job_id(1))
    shell.run()
    shell.restart()
    shell.ask(request(job=1, run_at=5_000), 10)
    shell.tick(6_000)
    assert not shell.readies
    assert len(shell.canceled[key(1)]) == 1


def test_a_released_job_is_the_schedulers_to_cancel() -> None:
    shell = Shell(WIDE)
    shell.ask(request(job=1, run_at=5_000), 0)
    shell.tick(5_000)
    shell.append(COMMANDS, 5_001, job_id(1))
    shell.run()
    assert shell.cancels_forwarded == [job_id(1)]
    assert not shell.canceled


def test_a_paused_job_waits_beyond_its_time() -> None:
    shell = Shell(WIDE)
    shell.ask(request(job=1, run_at=5_000), 0)
    assert [held.paused for held in shell.ledger.control("pause", "ann", job_id(1), None)] == [True]
    shell.tick(6_000)
    assert not shell.readies
    shell.ledger.control("resume", "ann", "", None)
    shell.tick(7_000)
    assert list(shell.readies) == [key(1)]


def test_the_priority_of_held_jobs_can_be_changed() -> None:
    shell = Shell(WIDE)
    for number in (1, 2):
        shell.ask(request(job=number, run_at=5_000), 0)
    assert len(shell.ledger.control("reprioritise", "ann", "", 1)) == 2
    assert shell.ledger.control("reprioritise", "bob", "", 5) == []
    shell.tick(5_000)
    assert [ready["priority"] for [ready] in shell.readies.values()] == [1, 1]


def test_rows_in_any_order_give_the_newest_of_a_debounce_key() -> None:
    shell = Shell(WIDE)
    rows = []
    for number in (1, 2):
        held = shell.ask(request(job=number, debounce_key="a", debounce_seconds=1.0), number).held
        assert held is not None
        rows.append(held)
    for order in (rows, rows[::-1]):
        holds = Holds()
        for held in order:
            holds.add(held)
        found = holds.debounced("ann", "a")
        assert found is not None
        assert found.job == key(2)
