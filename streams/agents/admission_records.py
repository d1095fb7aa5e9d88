"""The records that admission writes: answers, job events and inbox entries, many to a record where that is possible."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from schemas.codec import Codec, Record
from schemas.events import job_event
from schemas.jobs import Transition
from schemas.pipelines import PIPELINES
from schemas.topics import ANSWERS, EVENTS, schedule_topic
from streams.kafka.producer import Outgoing
from streams.policy.admission_rows import RELEASED, End, Held
from streams.policy.ready import lane_of
from streams.policy.submissions import Standing, Verdict, with_deadlines

MAX_RECORD_BYTES: Final = 200_000
_ANSWER_BYTES: Final = 160
_ENTRY_BYTES: Final = 400


@dataclass
class Sends:
    """What a batch leads to, in the order of sending; each group is acknowledged before the next one goes.

    rows: what is kept, with the events that must stand before anybody acts on them; entries: inbox entries by domain;
    after: events of what ended here; deletions: of rows that are not needed once all else is told.
    """

    rows: list[Outgoing] = field(default_factory=list)
    entries: dict[str, list[Record]] = field(default_factory=dict)
    answers: list[Record] = field(default_factory=list)
    after: list[Outgoing] = field(default_factory=list)
    deletions: list[Outgoing] = field(default_factory=list)

    def entry(self, domain: str, kind: str, at: int, **value: Any) -> None:
        """An inbox entry."""
        self.entries.setdefault(domain, []).append({"kind": kind, "at": at, **value})


def answer(request: Record, verdict: Verdict, standing: Standing, at: int) -> Record:
    """What the one who asked is told."""
    return {
        "request_id": request["request_id"],
        "job_id": request["job_id"],
        "user_id": request["user_id"],
        "outcome": verdict.outcome,
        "code": verdict.code,
        "detail": verdict.detail,
        "retry_after_ms": verdict.retry_after_ms,
        "limit_requests": standing.limit.burst_requests,
        "remaining_requests": verdict.remaining,
        "reset_ms": verdict.reset_ms,
        "answered_at": at,
        "limit": verdict.limit,
        "held_until": verdict.held.due_ms if verdict.held is not None else None,
    }


def request_events(codec: Codec, request: Record, verdict: Verdict, tier: str, at: int) -> list[Outgoing]:
    """The event of a verdict: queued, held or rejected."""
    if verdict.outcome == "rejected":
        job = {**request, "tier": tier, "lane": lane_of(request)}
        pipeline = PIPELINES.get(request["pipeline_id"])
        told = job_event(
            job, Transition.REJECTED, at=at, stage_count=len(pipeline.stages) if pipeline else 0,
            error_class=verdict.code, error_message=verdict.detail,
        )  # fmt: skip
        # A key that was refused stays free, so each refusal is an event of its own.
        told["event_id"] = f"{told['event_id'][:16]}{request['request_id'].replace('-', '')[:16]:0>16}"
        return [_event(codec, told)]
    if verdict.outcome != "accepted":
        return []
    if verdict.held is not None:
        return [_held_event(codec, verdict.held)]
    return [_queued(codec, verdict.ready, at)] if verdict.ready is not None else []


def _held_event(codec: Codec, held: Held) -> Outgoing:
    ready = held.ready
    told = job_event(
        ready, Transition.HELD, at=held.at_ms, stage_count=_stages(ready), due_at=held.due_ms, error_class=None
    )  # fmt: skip
    return _event(codec, told)


def _queued(codec: Codec, ready: Mapping[str, Any], at: int) -> Outgoing:
    return _event(codec, job_event(ready, Transition.QUEUED, at=at, stage_count=_stages(ready)))


def tell_end(codec: Codec, held: Held, end: End, domain: str, sends: Sends) -> None:
    """What follows from the end of holding a job: it goes to the scheduler, or its end is told."""
    if end.kind == RELEASED:
        ready = with_deadlines(held.ready, held.start_within_seconds, held.finish_within_seconds, end.at_ms)
        sends.rows.append(_queued(codec, ready, end.at_ms))
        sends.entry(domain, "stage_ready", end.at_ms, ready=ready)
        return
    superseded = end.reason == "superseded"
    told = job_event(
        held.ready, Transition.CANCELED, at=end.at_ms, stage_count=_stages(held.ready),
        error_class="superseded" if superseded else None,
        error_message="a newer request with the same debounce_key took its place" if superseded else end.reason or None,
    )  # fmt: skip
    sends.after.append(_event(codec, told))


def inbox_records(codec: Codec, entries: Mapping[str, list[Record]]) -> list[Outgoing]:
    """Inbox batches, each well under the size limit."""
    return [
        Outgoing(schedule_topic(domain), "admission", codec.encode("inbox_batch", {"entries": part}))
        for domain, found in entries.items()
        for part in _parts(found, _entry_bytes)
    ]


def answer_records(codec: Codec, answers: list[Record]) -> list[Outgoing]:
    """Answers, many to a record."""
    parts = _parts(answers, _answer_bytes)
    return [Outgoing(ANSWERS, None, codec.encode("admission_answers", {"answers": part})) for part in parts]


def _event(codec: Codec, told: Record) -> Outgoing:
    return Outgoing(EVENTS, told["job_id"], codec.encode("job_event", told))


def _stages(ready: Mapping[str, Any]) -> int:
    return len(PIPELINES[ready["pipeline_id"]].stages)


def _entry_bytes(entry: Record) -> int:
    ready = entry.get("ready")
    # The request's bytes hold everything of any length that stands beside them.
    return _ENTRY_BYTES + (2 * len(ready["request"]) if ready else 1_000)


def _answer_bytes(one: Record) -> int:
    texts = ("request_id", "job_id", "user_id", "detail")
    return _ANSWER_BYTES + 4 * sum(len(one[name]) for name in texts)


def _parts(items: Iterable[Record], size_of: Callable[[Record], int]) -> list[list[Record]]:
    """The items in their order, in parts of at most MAX_RECORD_BYTES, or of one item."""
    parts: list[list[Record]] = []
    size = MAX_RECORD_BYTES
    for item in items:
        more = size_of(item)
        if size + more > MAX_RECORD_BYTES:
            parts.append([])
            size = 0
        parts[-1].append(item)
        size += more
    return parts
