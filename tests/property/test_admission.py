"""Admission under any crashes between a decision, its rows and its sends: one fate a job, no limit ever passed."""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from streams.policy.admission import KEY_LIFE_MS
from streams.policy.admission_rows import RELEASED, Segment, decode_segment, encode_row
from streams.policy.bucket import Bucket, Limit, is_full
from streams.policy.segments import extent, rewrite, sweep_plan
from streams.policy.submissions import Standing
from tests.support.admission import CLOSED, COMMANDS, REQUESTS, TICKS, Shell, job_id, request

ORDERS = st.permutations([REQUESTS, COMMANDS, CLOSED, TICKS]).map(tuple)
JOBS = st.integers(0, 12)


class AdmissionMachine(RuleBasedStateMachine):
    """Requests, cancels, ends and ticks of one user, in batches of any size, with crashes at any step."""

    @initialize(
        rate=st.sampled_from([0.0, 6.0, 60.0, 600.0]), burst=st.integers(1, 5), backlog=st.sampled_from([1, 3, 100])
    )
    def begin(self, rate: float, burst: int, backlog: int) -> None:
        self.limit = Limit(requests_per_minute=rate, burst_requests=burst)
        self.shell = Shell(Standing(limit=self.limit, max_backlog=backlog))
        self.now = 1_000
        self.lives = 0

    @rule(
        job=JOBS, wait=st.booleans(), ahead=st.sampled_from([0, 0, 500, 4_000]),
        debounce=st.sampled_from([None, None, "a", "b"]), prompt=st.sampled_from(["a chair", "a chair", "a table"]),
    )  # fmt: skip
    def request_comes(self, job: int, wait: bool, ahead: int, debounce: str | None, prompt: str) -> None:
        body = request(
            job=job, on_limit="wait" if wait else "reject", prompt=prompt, run_at=self.now + ahead if ahead else None,
            debounce_key=debounce, debounce_seconds=2.0 if debounce else None,
        )  # fmt: skip
        self.shell.append(REQUESTS, self.now, body)

    @rule(job=JOBS)
    def cancel_comes(self, job: int) -> None:
        self.shell.append(COMMANDS, self.now, job_id(job))

    @rule(job=JOBS)
    def job_ends(self, job: int) -> None:
        """Only what the scheduler got can end there; it may tell twice."""
        if f"ann/{job_id(job)}" in self.shell.readies:
            self.shell.append(CLOSED, self.now, [job_id(job)])

    @rule(step_ms=st.integers(0, 3_000))
    def time_passes(self, step_ms: int) -> None:
        self.now += step_ms
        self.shell.append(TICKS, self.now, None)

    @rule(order=ORDERS, crash_after=st.one_of(st.none(), st.integers(0, 30)))
    def work(self, order: tuple[str, ...], crash_after: int | None) -> None:
        self.shell.crash_after = crash_after
        self.shell.run(order)
        self.shell.crash_after = None

    @rule()
    def sweep(self) -> None:
        """Rewriting the rows changes nothing of what a new life knows, whichever of them are old."""
        self.shell.run()
        named = {str(n): decode_segment(row) for n, row in enumerate(self.shell.segments)}
        now = self.now + KEY_LIFE_MS // 2

        def full(_user: str, row: Any) -> bool:
            return is_full(Bucket(tokens=row.bucket.tokens, at_ms=row.bucket.at_ms), self.limit, self.now)

        kept: list[Segment] = []
        for keys in sweep_plan({key: extent(segment) for key, segment in named.items()}, now):
            found = rewrite(self.shell.ledger, [named.pop(key) for key in keys], now, full)
            kept += [found] if found is not None else []
        self.shell.segments = [encode_row(segment) for segment in [*named.values(), *kept]]
        before = self.shell.ledger
        self.shell.restart()
        after = self.shell.ledger
        assert {key: job.state for key, job in after.jobs.items()} == {k: job.state for k, job in before.jobs.items()}
        assert after.backlog == before.backlog
        assert set(after.holds.rows) == set(before.holds.rows)

    @invariant()
    def one_fate_a_job(self) -> None:
        for job, told in self.shell.canceled.items():
            assert job not in self.shell.readies
            assert len({(end.kind, end.at_ms, end.reason) for end in told}) == 1
        for copies in self.shell.readies.values():
            assert all(copy == copies[0] for copy in copies)

    @invariant()
    def senders_are_told_the_same_each_time(self) -> None:
        for verdicts in self.shell.verdicts.values():
            assert len({(v.outcome, v.code, v.limit, v.retry_after_ms) for v in verdicts}) == 1

    @invariant()
    def the_bucket_holds_in_any_interval(self) -> None:
        grants = sorted(self._granted())
        for first, start in enumerate(grants):
            for last in range(first, len(grants)):
                allowed = self.limit.burst_requests + (grants[last] - start + 1) * self.limit.requests_per_minute / 6e4
                assert last - first + 1 <= allowed + 1e-3

    def _granted(self) -> list[int]:
        """When each accepted request took its token: held ones that waited for it, when it came."""
        found = []
        for offset, verdicts in self.shell.verdicts.items():
            at_ms, body = self.shell.topics[REQUESTS][offset]
            if verdicts[0].outcome != "accepted":
                continue
            held = verdicts[0].held
            waited = held is not None and held.why == "rate_limit"
            if held is not None and not waited and body["on_limit"] == "wait":
                continue  # its token came some time before it was due
            found.append(held.due_ms if held is not None and waited else at_ms)
        return found

    @invariant()
    def the_backlog_holds(self) -> None:
        assert self.shell.ledger.backlog.get("ann", 0) <= self.shell.standing.max_backlog
        states = [job.state for job in self.shell.ledger.jobs.values()]
        assert self.shell.ledger.backlog.get("ann", 0) == len(states) - states.count("closed")

    @invariant()
    def only_the_newest_of_a_debounce_key_waits(self) -> None:
        rows = [held for held in self.shell.ledger.holds.rows.values() if held.debounce_key]
        assert len({held.debounce_key for held in rows}) == len(rows)

    def teardown(self) -> None:
        """In the end every accepted job has gone on, not before its time, or was canceled; no row is left."""
        if not hasattr(self, "shell"):
            return
        self.shell.run()
        self.shell.restart()
        self.now += 30 * 24 * 3_600_000
        self.shell.tick(self.now)
        for offset, verdicts in self.shell.verdicts.items():
            if verdicts[0].outcome != "accepted":
                continue
            _, body = self.shell.topics[REQUESTS][offset]
            job, held = f"ann/{body['job_id']}", verdicts[0].held
            assert (job in self.shell.readies) != (job in self.shell.canceled)
            if held is not None and job in self.shell.readies:
                assert self._released(job) >= held.due_ms
        assert not self.shell.held

    def _released(self, job: str) -> int:
        ends = [end for row in self.shell.segments for end in decode_segment(row).ends]
        return max((end.at_ms for end in ends if end.job == job and end.kind == RELEASED), default=self.now)


AdmissionMachine.TestCase.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
TestAdmission = AdmissionMachine.TestCase
