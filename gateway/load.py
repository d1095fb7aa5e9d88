"""How the scheduling domain stands, from control.load: its freshness, and places in its queue."""

import math
from typing import Final

from schemas.codec import Record

# Older than this, the gateway is not ready; older than the second, it refuses requests itself. A scheduler that is
# started again needs some of the time between, and what is accepted meanwhile waits in Kafka.
FRESH_SECONDS: Final = 5.0
REFUSE_SECONDS: Final = 20.0


class LoadView:
    """The newest DomainLoad; belongs to the event loop. started_ms: when the gateway began to listen for it."""

    def __init__(self, started_ms: int) -> None:
        self._newest: Record | None = None
        self._seen_ms = started_ms

    def apply(self, load: Record) -> None:
        """Takes over a newer record."""
        if self._newest is None or load["at"] >= self._newest["at"]:
            self._newest = load
            self._seen_ms = load["at"]

    def known(self) -> bool:
        """Whether the scheduler has said anything since the gateway started."""
        return self._newest is not None

    def age_seconds(self, now_ms: int) -> float:
        """Seconds since the scheduler's last word, or since the start."""
        return max(0.0, (now_ms - self._seen_ms) / 1000)

    def queue_position(self, user_id: str, users_jobs_before: int) -> int | None:
        """The place of a queued job, from 1; None when the backlog does not list its user.

        The tag of the user's n-th waiting task is start_tag + n × step (start-time fair queueing); every waiting
        task with a smaller tag goes first.
        """
        if self._newest is None:
            return None
        backlog = self._newest["backlog"]
        own = next((b for b in backlog if b["user_id"] == user_id), None)
        if own is None or own["queued_tasks"] < 1:
            return None
        tag = own["start_tag"] + users_jobs_before * own["step"]
        ahead = sum(_tasks_before(b, tag) for b in backlog if b is not own)
        return int(ahead + users_jobs_before + 1)


def _tasks_before(backlog: Record, tag: float) -> int:
    distance = tag - backlog["start_tag"]
    if distance <= 0 or not math.isfinite(distance):
        return 0
    if backlog["step"] <= 0:
        return int(backlog["queued_tasks"])
    return int(min(math.ceil(distance / backlog["step"]), backlog["queued_tasks"]))
