"""How the scheduling domain stands, from control.load: its freshness, places in its queue, times to expect, and what it
refuses."""

import math
from collections.abc import Mapping, Sequence
from typing import Final

from gateway.jobs import eta_json, iso
from schemas.codec import Record
from schemas.eta import Predicted, predict_for

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

    def silent(self, now_ms: int) -> bool:
        """Whether the scheduler has said nothing for so long that requests are refused."""
        return self.age_seconds(now_ms) > REFUSE_SECONDS

    def age_seconds(self, now_ms: int) -> float:
        """Seconds since the scheduler's last word, or since the start."""
        return max(0.0, (now_ms - self._seen_ms) / 1000)

    def queue_position(self, user_id: str, lane: str, users_jobs_before: int) -> int | None:
        """The place of a queued job in its lane, from 1; None when the backlog does not list its user there.

        The tag of the user's n-th waiting task is start_tag + n × step (start-time fair queueing); every waiting
        task of the lane with a smaller tag goes first.
        """
        if self._newest is None:
            return None
        backlog = [b for b in self._newest["backlog"] if b["lane"] == lane]
        own = next((b for b in backlog if b["user_id"] == user_id), None)
        if own is None or own["queued_tasks"] < 1:
            return None
        tag = own["start_tag"] + users_jobs_before * own["step"]
        ahead = sum(_tasks_before(b, tag) for b in backlog if b is not own)
        return int(ahead + users_jobs_before + 1)

    def predicted(self, user_id: str, lane: str, users_jobs_before: int) -> Predicted | None:
        """When a queued job with so many of its user's before it in the lane will start and end; None while nothing
        can be said."""
        if self._newest is None:
            return None
        return predict_for(self._newest, lane, user_id, jobs_before=users_jobs_before, queued=True)

    def predicted_for_new(self, user_id: str, lane: str) -> Predicted | None:
        """The same for a job that the user would submit now."""
        if self._newest is None:
            return None
        own = (b for b in self._newest["backlog"] if b["user_id"] == user_id and b["lane"] == lane)
        before = next((int(b["queued_tasks"]) for b in own), 0)
        return predict_for(self._newest, lane, user_id, jobs_before=before)

    def refused_for_seconds(self, tier: str, lane: str) -> float | None:
        """How long submissions of this tier and lane are refused by the load level; None when they are not."""
        found = self._newest
        if found is None or not (tier in found["refused_tiers"] or lane in found["refused_lanes"]):
            return None
        return float(found["retry_after_seconds"])

    def over_depth_seconds(self, max_queue_depth: int) -> float | None:
        """When fewer tasks than a request's max_queue_depth will wait, at the present rate; None when they do now."""
        found = self._newest
        if found is None or found["queued_tasks"] <= max_queue_depth:
            return None
        share = (found["queued_tasks"] - max_queue_depth) / found["queued_tasks"]
        return float(share * found["queued_gpu_seconds"] / max(1, found["capacity"]))

    def summary(self, user_id: str, tier: str, now_ms: int) -> Record | None:
        """What a user may know of the domain's load; None before the scheduler's first word."""
        found = self._newest
        if found is None:
            return None
        lanes = []
        for lane in (row["lane"] for row in found["lanes"]):
            retry_after = self.refused_for_seconds(tier, lane)
            lanes.append(
                {
                    "lane": lane,
                    "eta": eta_json(self.predicted_for_new(user_id, lane), now_ms),
                    "refused": retry_after is not None,
                }
            )
        return {
            "level": found["level"],
            "level_since": iso(found["level_since"]),
            "effects": effects(found),
            "predicted_wait_seconds": round(found["predicted_wait_seconds"], 1),
            "queued_tasks": found["queued_tasks"],
            "retry_after_seconds": math.ceil(found["retry_after_seconds"]),
            "lanes": lanes,
            "at": iso(found["at"]),
        }


class Loads:
    """The load of every domain, and which domain schedules which pipeline."""

    def __init__(self, started_ms: int, domains: Sequence[str], domain_of: Mapping[str, str]) -> None:
        self.domains = {name: LoadView(started_ms) for name in domains}
        self._first = self.domains[domains[0]]
        self._of = {pipeline_id: self.domains[name] for pipeline_id, name in domain_of.items()}

    def apply(self, load: Record) -> None:
        """Takes over a domain's newer record; one of a domain that is none of ours says nothing."""
        view = self.domains.get(load["domain"])
        if view is not None:
            view.apply(load)

    def of(self, pipeline_id: str) -> LoadView:
        """The load of the domain that schedules a pipeline."""
        return self._of.get(pipeline_id, self._first)


_EFFECTS: Final = (
    (1, "the size of textures is capped"),
    (2, "the quality of some tiers' jobs is lowered; a job's adjustments say so"),
)


def effects(load: Record) -> list[str]:
    """What the load level does, for people."""
    found = [text for level, text in _EFFECTS if load["level"] >= level]
    refused = [f"tier {name}" for name in load["refused_tiers"]] + [f"lane {name}" for name in load["refused_lanes"]]
    return found + ([f"submissions are refused: {', '.join(refused)}"] if refused else [])


def _tasks_before(backlog: Record, tag: float) -> int:
    distance = tag - backlog["start_tag"]
    if distance <= 0 or not math.isfinite(distance):
        return 0
    if backlog["step"] <= 0:
        return int(backlog["queued_tasks"])
    return int(min(math.ceil(distance / backlog["step"]), backlog["queued_tasks"]))
