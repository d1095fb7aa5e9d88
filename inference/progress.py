"""One percentage over a whole job, from how far its running stage is. Pure."""

from typing import Final

from inference.work import WorkItem
from schemas.pipelines import PIPELINES

INTERVAL_MS: Final = 500
MESSAGE_CHARACTERS: Final = 200


def stage_span(pipeline_id: str, stage_index: int, stage_count: int) -> tuple[float, float]:
    """Where a stage's part of the job's progress begins and ends, 0 to 1; equal parts for an unknown pipeline."""
    pipeline = PIPELINES.get(pipeline_id)
    shares = [spec.share for spec in pipeline.stages] if pipeline else []
    if len(shares) != stage_count or not 0 <= stage_index < stage_count:
        return stage_index / stage_count, (stage_index + 1) / stage_count
    total = sum(shares)
    return sum(shares[:stage_index]) / total, sum(shares[: stage_index + 1]) / total


class ProgressMeter:
    """The progress of one attempt: never falls, speaks at most every 500 ms, does not forget the newest word."""

    def __init__(self, item: WorkItem) -> None:
        self._begin, self._end = stage_span(item.pipeline_id, item.stage_index, item.stage_count)
        self._fraction = 0.0
        self._message = ""
        self._news = False
        self._told_at: int | None = None

    def tell(self, fraction: float, message: str) -> None:
        """Takes in what the stage says."""
        self._fraction = max(self._fraction, min(1.0, fraction))
        self._message = message[:MESSAGE_CHARACTERS]
        self._news = True

    def due(self, now: int) -> tuple[float, str] | None:
        """Percent and message to publish at `now` (ms), None when there is nothing new or it is too early."""
        if not self._news or (self._told_at is not None and now - self._told_at < INTERVAL_MS):
            return None
        self._told_at = now
        self._news = False
        return round(100 * (self._begin + (self._end - self._begin) * self._fraction), 2), self._message


class ProgressBoard:
    """The meters of all attempts in hand, by dispatch."""

    def __init__(self) -> None:
        self._meters: dict[str, tuple[WorkItem, ProgressMeter]] = {}
        self._news: set[str] = set()

    def tell(self, item: WorkItem, fraction: float, message: str) -> None:
        """Takes in what an item's stage says."""
        found = self._meters.get(item.dispatch_id)
        if found is None:
            found = self._meters[item.dispatch_id] = item, ProgressMeter(item)
        found[1].tell(fraction, message)
        self._news.add(item.dispatch_id)

    def due(self, now: int) -> list[tuple[WorkItem, float, str]]:
        """Item, percent and message of each attempt of which something is to be published at `now` (ms)."""
        told = []
        for dispatch_id in sorted(self._news):
            item, meter = self._meters[dispatch_id]
            due = meter.due(now)
            if due is not None:
                self._news.discard(dispatch_id)
                told.append((item, *due))
        return told

    def forget(self, dispatch_id: str) -> None:
        """The attempt has ended; what was not told yet is not told any more."""
        self._meters.pop(dispatch_id, None)
        self._news.discard(dispatch_id)

    def clear(self) -> None:
        """Forgets every attempt."""
        self._meters.clear()
        self._news.clear()
