"""Admission's decisions: is the request new, allowed, and within its user's limits? Does it go on now, or wait here?

Pure: `now_ms` is the broker's append time of the record, so a replay after a crash decides the same. A `Ledger` is
what one partition's users have: it changes at once, and `segment()` gives what changed, to be written before anything
that follows from it is sent to the scheduler. Records come again after a crash: those whose segment was written get
the verdict that they had, the others are decided anew.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from schemas.pipelines import PIPELINES
from streams.policy.admission_rows import (
    CANCELED,
    CLOSED,
    EARLY_CANCEL,
    RELEASED,
    Accepted,
    BucketRow,
    End,
    Held,
    Refused,
    Segment,
    UserRow,
)
from streams.policy.bucket import Bucket, reserve
from streams.policy.holds import Holds
from streams.policy.ready import lane_of, stage_ready
from streams.policy.submissions import Standing, Verdict, fingerprint
from streams.policy.validation import MAX_AHEAD_MS

Place = tuple[str, int]  # topic and offset of a record

KEY_LIFE_MS: Final = 24 * 3_600_000
SUPERSEDED: Final = "superseded"
# A job's end may carry a slightly older time than its beginning: two brokers stamp them.
SKEW_MS: Final = 3_600_000
# How old a report of the load may be to refuse requests by.
LOAD_LIFE_MS: Final = 10_000
REFUSING_LEVEL: Final = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Came:
    """A record that came. at_ms: its append time; problem: what is wrong with its form, None if nothing is."""

    place: Place
    at_ms: int
    problem: str | None = None


@dataclass(slots=True)
class Job:
    """What is known of a job. state: held, open (the scheduler has it) or closed; canceled: how it ended, if here."""

    taken: Accepted
    topic: str
    state: Literal["held", "open", "closed"]
    canceled: End | None = None


class Ledger:
    """The jobs, buckets and held jobs of one partition's users."""

    def __init__(self, partition: int = 0) -> None:
        self.partition = partition
        self.jobs: dict[str, Job] = {}
        self.users: dict[str, UserRow] = {}
        self.backlog: dict[str, int] = {}  # user -> jobs that are held or open
        self.holds = Holds()
        self.unfinished: list[tuple[Held, End]] = []  # ends that a crash may have kept from being told
        self.early: dict[str, End] = {}  # ends and cancels of jobs that have not come
        self.refused: dict[Place, Refused] = {}
        self._fresh = Segment(topic="", oldest_ms=0, newest_ms=0)

    # ---- requests -----------------------------------------------------------------------------------------------

    def decide(
        self, request: Mapping[str, Any], raw: bytes, came: Came, standing: Standing, domain: str,
        load: Mapping[str, Any] | None = None,
    ) -> Verdict:  # fmt: skip
        """The verdict on one request.

        raw: the request as it came; domain: where its pipeline is scheduled; load: that domain's newest DomainLoad.
        """
        place, now_ms, problem = came.place, came.at_ms, came.problem
        refused = self.refused.get(place)
        if refused is not None:  # decided before a crash: say the same again
            return _refusal(refused)
        job = self.jobs.get(f"{request['user_id']}/{request['job_id']}")
        if job is not None and (job.topic, job.taken.offset) == place:
            return self._again(request, raw, job, now_ms, standing)
        if problem is not None:
            return self._refuse(place, now_ms, "invalid_request", problem)
        scope = PIPELINES[request["pipeline_id"]].scope
        if scope not in standing.scopes:
            detail = f"pipeline_id: {request['pipeline_id']!r} needs the scope {scope!r}, which this user does not have"
            return self._refuse(place, now_ms, "forbidden", detail)
        if job is not None and (job.state != "closed" or now_ms - job.taken.at_ms <= KEY_LIFE_MS):
            left = self._left(request["user_id"], standing)
            if job.taken.fingerprint != fingerprint(request):
                detail = "the same Idempotency-Key (or job_id) was used with another body; use a new key"
                return Verdict(outcome="conflict", code="idempotency_conflict", detail=detail, remaining=left)
            return Verdict(outcome="duplicate", remaining=left, domain=job.taken.domain, held=self._held(job))
        refusal = self._over_load(request, standing, load, place, now_ms) or self._over_backlog(
            request, standing, place, now_ms
        )
        return refusal or self._within_rate(request, raw, place, now_ms, standing, domain)

    def _again(
        self, request: Mapping[str, Any], raw: bytes, job: Job, now_ms: int, standing: Standing
    ) -> Verdict:  # fmt: skip
        """A record that was accepted before a crash: what followed from it may not have been sent."""
        ready, held, ended = None, self._held(job), list[tuple[Held, End]]()
        taken, place = job.taken, (job.topic, job.taken.offset)
        if job.state == "open" and taken.due_ms is None:
            ready = stage_ready(request, raw, tier=standing.tier, at_ms=taken.at_ms)
        elif taken.due_ms is not None and (job.state == "held" or job.canceled is not None):
            if held is None:  # the segment was written, the row was not
                draft = stage_ready(request, raw, tier=standing.tier, at_ms=taken.at_ms)
                held = _hold(self.partition, request, draft, place, taken.at_ms, taken.due_ms)
            if job.canceled is not None:
                ended = [(held, job.canceled)]
            else:
                self.holds.add(held)
                older = self._superseded(request, taken.at_ms, taken.offset)
                ended = [self._end(older, CANCELED, now_ms, SUPERSEDED)] if older is not None else []
        left = self._left(request["user_id"], standing)
        domain = job.taken.domain
        return Verdict(
            outcome="accepted", remaining=left, domain=domain, ready=ready, held=held, ended=tuple(ended)
        )  # fmt: skip

    def _within_rate(
        self, request: Mapping[str, Any], raw: bytes, place: Place, now_ms: int, standing: Standing, domain: str
    ) -> Verdict:
        """A new request takes a token of its user and of its key, or waits for them."""
        user_id, key_id = request["user_id"], request["key_id"]
        row = self.users.get(user_id) or UserRow(0, BucketRow(0.0, None))
        of_user = reserve(_bucket(row.bucket), standing.limit, now_ms)
        key_limit = standing.key_limits.get(key_id) if key_id is not None else None
        of_key = reserve(_bucket(row.keys.get(key_id)), key_limit, now_ms) if key_limit is not None else None
        due, limit = of_user.due_ms, "requests"
        if of_key is not None and of_key.due_ms > due:
            due, limit = of_key.due_ms, "key_requests"
        if due > now_ms and (request["on_limit"] != "wait" or due > now_ms + MAX_AHEAD_MS):
            over = key_limit if limit == "key_requests" and key_limit is not None else standing.limit
            detail = (
                f"{limit}: over the limit of {over.requests_per_minute:g} a minute (burst {over.burst_requests}); "
                f"wait {due - now_ms} ms"
            )
            return self._refuse(place, now_ms, "rate_limit", detail, limit=limit, retry_after_ms=due - now_ms)
        keys = row.keys if of_key is None else {**row.keys, str(key_id): _row(of_key.bucket)}
        # Greater than that of any row that was ever dropped because its bucket was full again.
        revision = max(row.revision + 1, now_ms * 4096)
        self.users[user_id] = self._fresh.users[user_id] = UserRow(revision, _row(of_user.bucket), keys)
        due = max(due, request["run_at"] or 0, now_ms + int((request["debounce_seconds"] or 0) * 1000))
        taken = self._take(request, place, now_ms, due if due > now_ms else None, domain)
        ready, held, ended = stage_ready(request, raw, tier=standing.tier, at_ms=now_ms), None, []
        if due > now_ms:
            older = self._superseded(request, now_ms, place[1])
            if older is not None:
                ended.append(self._end(older, CANCELED, now_ms, SUPERSEDED))
            held = _hold(self.partition, request, ready, place, now_ms, due)
            self.holds.add(held)
            early = self.early.get(taken.job)
            if early is not None and early.kind == EARLY_CANCEL:
                ended.append(self._end(held, CANCELED, now_ms, early.reason))
        return Verdict(
            outcome="accepted",
            remaining=of_user.remaining,
            reset_ms=of_user.reset_ms,
            domain=domain,
            held=held,
            ready=None if held is not None else ready,
            ended=tuple(ended),
        )

    def _take(
        self, request: Mapping[str, Any], place: Place, now_ms: int, due_ms: int | None, domain: str
    ) -> Accepted:  # fmt: skip
        """Notes that the job is ours now."""
        user_id = request["user_id"]
        job = f"{user_id}/{request['job_id']}"
        taken = Accepted(job, fingerprint(request), place[1], now_ms, due_ms, domain)
        self._fresh.accepted.append(taken)
        known = Job(taken, place[0], "held" if due_ms is not None else "open")
        self.jobs[job] = known
        early = self.early.get(job)
        if early is not None and early.kind == CLOSED and early.at_ms >= now_ms - SKEW_MS:
            known.state = "closed"
        else:
            self.backlog[user_id] = self.backlog.get(user_id, 0) + 1
        return taken

    def _superseded(self, request: Mapping[str, Any], at_ms: int, offset: int) -> Held | None:
        """The older held job that this request replaces."""
        key = request["debounce_key"]
        older = self.holds.debounced(request["user_id"], key) if key is not None else None
        return older if older is not None and (older.at_ms, older.offset) < (at_ms, offset) else None

    def _over_backlog(
        self, request: Mapping[str, Any], standing: Standing, place: Place, now_ms: int
    ) -> Verdict | None:  # fmt: skip
        count = self.backlog.get(request["user_id"], 0)
        if self._superseded(request, now_ms, place[1]) is not None:
            count -= 1  # the job that it replaces makes room
        if count < standing.max_backlog:
            return None
        detail = f"backlog: {count} jobs are held, queued or running, {standing.max_backlog} at most; wait for some"
        return self._refuse(place, now_ms, "backlog_limit", detail, limit="backlog")

    def _over_load(
        self, request: Mapping[str, Any], standing: Standing, load: Mapping[str, Any] | None, place: Place, now_ms: int
    ) -> Verdict | None:
        if load is None or load["level"] < REFUSING_LEVEL or now_ms - load["at"] > LOAD_LIFE_MS:
            return None
        lane = lane_of(request)
        if standing.tier not in load["refused_tiers"] and lane not in load["refused_lanes"]:
            return None
        wait_ms = max(1_000, int(load["retry_after_seconds"] * 1000))
        detail = f"load: the platform is overloaded and takes no jobs of tier {standing.tier!r} in lane {lane!r} now"
        return self._refuse(place, now_ms, "overloaded", detail, limit="load", retry_after_ms=wait_ms)

    def _refuse(
        self, place: Place, now_ms: int, code: str, detail: str, *, limit: str | None = None,
        retry_after_ms: int | None = None,
    ) -> Verdict:  # fmt: skip
        refused = Refused(place[1], now_ms, code, limit, detail[:300], retry_after_ms)
        self.refused[place] = refused
        self._fresh.refused.append(refused)
        return _refusal(refused)

    def _held(self, job: Job) -> Held | None:
        return self.holds.rows.get(job.taken.job) if job.state == "held" else None

    def _left(self, user_id: str, standing: Standing) -> int:
        row = self.users.get(user_id)
        return max(0, int(row.bucket.tokens)) if row else standing.limit.burst_requests

    # ---- what happens to jobs -----------------------------------------------------------------------------------

    def close(self, user_id: str, job_ids: Iterable[str], now_ms: int) -> None:
        """The scheduler tells that jobs have ended."""
        for job_id in job_ids:
            key = f"{user_id}/{job_id}"
            job = self.jobs.get(key)
            if job is None or job.state == "open":
                self._note(End(key, CLOSED, now_ms))

    def cancel(self, user_id: str, job_id: str, reason: str, now_ms: int) -> tuple[Held, End] | str | None:
        """A held job ends here; else the domain whose scheduler has the job ("": not known, any), or None when it has
        ended."""
        key = f"{user_id}/{job_id}"
        job = self.jobs.get(key)
        if job is None:
            self._note(End(key, EARLY_CANCEL, now_ms, reason))
            return ""
        held = self._held(job)
        if held is not None:
            return self._end(held, CANCELED, now_ms, reason)
        return job.taken.domain if job.state == "open" else None

    def domain_of(self, user_id: str, job_id: str) -> str:
        """The domain whose scheduler orders a job; "" where that is not known."""
        job = self.jobs.get(f"{user_id}/{job_id}")
        return job.taken.domain if job is not None else ""

    def control(self, kind: str, user_id: str, job_id: str, priority: int | None) -> list[Held]:
        """reprioritise, pause or resume of held jobs (job_id "": all of the user's): the changed rows."""
        if job_id:
            one = self.holds.rows.get(f"{user_id}/{job_id}")
            rows = [one] if one is not None else []
        else:
            rows = self.holds.of_user(user_id)
        for held in rows:
            if kind == "reprioritise" and priority is not None:
                held.ready = {**held.ready, "priority": priority}
            else:
                held.paused = kind == "pause"
            self.holds.add(held)
        return rows

    def tick(self, now_ms: int) -> list[tuple[Held, End]]:
        """Held jobs whose time has come, in order, and those that a crash may have kept from being told."""
        told, self.unfinished = self.unfinished, []
        return told + [self._end(held, RELEASED, now_ms, "") for held in self.holds.due(now_ms)]

    def _end(self, held: Held, kind: str, now_ms: int, reason: str) -> tuple[Held, End]:
        end = End(held.job, kind, now_ms, reason[:300])
        self.holds.take(held.job)
        self._note(end)
        return held, end

    def _note(self, end: End) -> None:
        self._apply(end)
        self._fresh.ends.append(end)

    def _apply(self, end: End) -> None:
        job = self.jobs.get(end.job)
        if job is None or end.kind == EARLY_CANCEL:
            self.early[end.job] = end
        elif end.at_ms < job.taken.at_ms - SKEW_MS or job.state == "closed":
            pass  # of an earlier life of the same id, or a repeat
        elif end.kind == RELEASED:
            job.state = "open"
        else:
            job.state, job.canceled = "closed", end if end.kind == CANCELED else None
            user_id = end.job.rpartition("/")[0]
            self.backlog[user_id] -= 1
            if not self.backlog[user_id]:
                del self.backlog[user_id]

    # ---- rows ---------------------------------------------------------------------------------------------------

    def segment(self, topic: str, now_ms: int) -> Segment | None:
        """What changed since the last call, None if nothing did."""
        if not len(self._fresh):
            return None
        found = self._fresh
        found.topic, found.oldest_ms, found.newest_ms = topic, now_ms, now_ms
        self._fresh = Segment(topic="", oldest_ms=0, newest_ms=0)
        return found

    @classmethod
    def recovered(cls, partition: int, segments: Iterable[Segment], held: Iterable[Held]) -> "Ledger":
        """From the rows, in any order."""
        self = cls(partition)
        ends: list[End] = []
        for segment in segments:
            for taken in segment.accepted:
                known = self.jobs.get(taken.job)
                if known is None or known.taken.at_ms <= taken.at_ms:
                    self.jobs[taken.job] = Job(taken, segment.topic, "open" if taken.due_ms is None else "held")
            for refused in segment.refused:
                self.refused[(segment.topic, refused.offset)] = refused
            for user_id, user in segment.users.items():
                if user_id not in self.users or self.users[user_id].revision < user.revision:
                    self.users[user_id] = user
            ends += segment.ends
        for key in self.jobs:
            user_id = key.rpartition("/")[0]
            self.backlog[user_id] = self.backlog.get(user_id, 0) + 1
        last: dict[str, End] = {}
        for end in sorted(ends, key=lambda end: end.at_ms):
            self._apply(end)
            if end.kind in (RELEASED, CANCELED):
                last[end.job] = end
        for row in held:
            job = self.jobs.get(row.job)
            if job is None or (job.topic, job.taken.offset) != (row.topic, row.offset):
                continue  # its segment was not written: the request comes again
            if job.state == "held":
                self.holds.add(row)
            elif row.job in last:
                self.unfinished.append((row, last[row.job]))
        return self


def _hold(
    partition: int, request: Mapping[str, Any], ready: dict[str, Any], place: Place, at_ms: int, due_ms: int
) -> Held:
    """The row of a job that waits until due_ms."""
    key = request["debounce_key"]
    ahead = request["run_at"] is not None and request["run_at"] == due_ms
    return Held(
        job=f"{request['user_id']}/{request['job_id']}",
        topic=place[0],
        partition=partition,
        offset=place[1],
        at_ms=at_ms,
        due_ms=due_ms,
        why="run_at" if ahead else "debounce" if key is not None else "rate_limit",
        workflow=request["workflow"],
        ready=ready,
        start_within_seconds=request["start_within_seconds"],
        finish_within_seconds=request["finish_within_seconds"],
        debounce_key=key,
    )


def _refusal(refused: Refused) -> Verdict:
    return Verdict(
        outcome="rejected",
        code=refused.code,
        detail=refused.detail,
        limit=refused.limit,
        retry_after_ms=refused.retry_after_ms,
        reset_ms=refused.retry_after_ms or 0,
    )


def _bucket(row: BucketRow | None) -> Bucket:
    return Bucket(tokens=row.tokens, at_ms=row.at_ms) if row is not None else Bucket()


def _row(bucket: Bucket) -> BucketRow:
    return BucketRow(bucket.tokens, bucket.at_ms)
