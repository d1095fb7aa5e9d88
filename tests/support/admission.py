"""Admission's ledger with a model of its shell: rows are written before what follows is sent, and any step may be the
last one before a crash."""

import uuid
from typing import Any

from streams.policy.admission import Came, Ledger
from streams.policy.admission_rows import CANCELED, End, Held, Segment, decode_held, decode_segment, encode_row
from streams.policy.bucket import Limit
from streams.policy.submissions import Standing, Verdict, with_deadlines
from streams.policy.validation import Sender, fault

REQUESTS = "requests.text-to-3d"
COMMANDS, CLOSED, TICKS = "commands", "users.closed", "admission.ticks"
PRO = Standing(
    tier="pro", limit=Limit(requests_per_minute=60, burst_requests=3), scopes=frozenset({"jobs"}), max_backlog=1_000
)


def request(**changes: Any) -> dict[str, Any]:
    """A good request of the user ann; job=N is short for a job_id."""
    if "job" in changes:
        changes["job_id"] = job_id(changes.pop("job"))
    return {
        "request_id": "r", "job_id": job_id(7), "user_id": "ann", "tier": "enterprise", "job_type": "model",
        "created_at": 0, "workflow": "text-to-3d", "pipeline_id": "assembly", "model_version": None,
        "prompt": "a chair", "seed": 1, "quality": "standard", "formats": ["glb"], "parameters": {},
        "traceparent": None, "lane": None, "priority": 3, "texture_size": None, "run_at": None, "on_limit": "reject",
        "debounce_key": None, "debounce_seconds": None, "start_within_seconds": None, "finish_within_seconds": None,
        "max_queue_depth": None, "key_id": None, "retry_of": None, "resume": None, **changes,
    }  # fmt: skip


def job_id(number: int) -> str:
    """The id of job `number`."""
    return str(uuid.UUID(int=number))


class Crash(Exception):
    """The process dies here."""


class Shell:
    """One partition: its topics with their committed offsets, the rows, what was sent, and the ledger in memory.

    Records are `(kind, at_ms, body)`. `crash_after` counts the steps (a row written, a record sent, a commit) until the
    next crash; None: no crash. After a crash everything since the committed offsets comes again.
    """

    def __init__(self, standing: Standing = PRO, load: dict[str, Any] | None = None) -> None:
        self.standing = standing
        self.load = load
        self.topics: dict[str, list[tuple[int, Any]]] = {REQUESTS: [], COMMANDS: [], CLOSED: [], TICKS: []}
        self.committed = dict.fromkeys(self.topics, 0)
        self.segments: list[bytes] = []
        self.held: dict[str, bytes] = {}
        self.ledger = Ledger()
        self.crash_after: int | None = None
        self.crashes = 0
        self.verdicts: dict[int, list[Verdict]] = {}  # offset of a request -> what its sender was told, each time
        self.readies: dict[str, list[dict[str, Any]]] = {}  # job -> StageReady, each time
        self.canceled: dict[str, list[End]] = {}
        self.cancels_forwarded: list[str] = []

    def ask(self, body: dict[str, Any], at_ms: int) -> Verdict:
        """A request comes; the verdict that its sender was told first."""
        offset = self.append(REQUESTS, at_ms, body)
        self.run()
        return self.verdicts[offset][0]

    def append(self, topic: str, at_ms: int, body: Any) -> int:
        """A record comes; its offset."""
        self.topics[topic].append((at_ms, body))
        return len(self.topics[topic]) - 1

    def tick(self, at_ms: int) -> None:
        """Time passes."""
        self.append(TICKS, at_ms, None)
        self.run()

    def run(self, order: tuple[str, ...] = (TICKS, CLOSED, COMMANDS, REQUESTS)) -> None:
        """Works until everything is committed, through any crashes."""
        while any(self.committed[topic] < len(records) for topic, records in self.topics.items()):
            try:
                for topic in order:
                    self._batch(topic)
            except Crash:
                self.restart()

    def restart(self) -> None:
        """A new life, from the rows alone."""
        self.crashes += 1
        self.crash_after = None
        self.ledger = Ledger.recovered(
            0, [decode_segment(row) for row in self.segments], [decode_held(row) for row in self.held.values()]
        )

    def _step(self) -> None:
        if self.crash_after is not None:
            self.crash_after -= 1
            if self.crash_after < 0:
                raise Crash

    def _batch(self, topic: str) -> None:
        """What Admission does with a batch, in its order of sending."""
        start, records = self.committed[topic], self.topics[topic]
        batch = list(enumerate(records))[start:]
        if not batch:
            return
        told: list[tuple[int, Verdict]] = []
        held_rows: list[Held] = []
        readies: list[dict[str, Any]] = []
        ended: list[tuple[Held, End]] = []
        for offset, (at_ms, body) in batch:
            if topic == REQUESTS:
                verdict = self._decide(offset, at_ms, body)
                told.append((offset, verdict))
                held_rows += [verdict.held] if verdict.held is not None and verdict.outcome == "accepted" else []
                readies += [verdict.ready] if verdict.ready is not None else []
                ended += verdict.ended
            elif topic == COMMANDS:
                found = self.ledger.cancel("ann", body, "", at_ms)
                if isinstance(found, tuple):
                    ended.append(found)
                elif found is not None:
                    self.cancels_forwarded.append(body)
            elif topic == CLOSED:
                self.ledger.close("ann", body, at_ms)
            else:
                ended += self.ledger.tick(at_ms)
        for held, end in ended:
            if end.kind != CANCELED:
                within = held.start_within_seconds, held.finish_within_seconds
                readies.append(with_deadlines(held.ready, *within, end.at_ms))
        self._write(held_rows, self.ledger.segment(topic, batch[-1][1][0]), swap=len(records) % 2 == 0)
        for ready in readies:
            self._step()
            self.readies.setdefault(f"{ready['user_id']}/{ready['job_id']}", []).append(ready)
        for offset, verdict in told:
            self._step()
            self.verdicts.setdefault(offset, []).append(verdict)
        for held, end in ended:
            if end.kind == CANCELED:
                self._step()
                self.canceled.setdefault(held.job, []).append(end)
        for held, _ in ended:
            self._step()
            self.held.pop(held.job, None)
        self._step()
        self.committed[topic] = len(records)

    def _decide(self, offset: int, at_ms: int, body: dict[str, Any]) -> Verdict:
        sender = Sender(key=body["user_id"], size_bytes=300, at_ms=at_ms, operator=True, owns=lambda _: False)
        came = Came(place=(REQUESTS, offset), at_ms=at_ms, problem=fault(body, "text-to-3d", sender))
        return self.ledger.decide(body, b"raw", came, self.standing, "main", self.load)

    def _write(self, held: list[Held], segment: Segment | None, *, swap: bool) -> None:
        """Rows of two topics: either may be written when the process dies before the other."""
        rows: list[Held | Segment] = [*held, *([segment] if segment is not None else [])]
        for row in reversed(rows) if swap else rows:
            self._step()
            if isinstance(row, Segment):
                self.segments.append(encode_row(row))
            else:
                self.held[row.job] = encode_row(row)
