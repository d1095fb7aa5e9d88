"""When a queued job will start and end, from a DomainLoad record: pure functions for whoever tells users.

A task's place in the order is its start tag (start-time fair queueing). The lane's histogram says how much work has a
smaller tag, the lane's rate how fast such work goes: their ratio is the predicted wait. The record also says how
measured times compared with predicted ones lately (conformal prediction: quantiles of the ratio (measured + floor) /
(predicted + floor)), and the 50 % and 90 % bounds follow from that.

Source: Papadopoulos et al., "Inductive confidence machines for regression", ECML 2002 (normalised conformal scores).
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

Load = Mapping[str, Any]  # a DomainLoad record

LEAST_FLOOR_SECONDS: Final = 1.0


class Predicted(NamedTuple):
    """Seconds from now. wait_seconds: until the start, by the model alone; p50, p90: bounds of it that half and nine
    of ten jobs keep; total_p50, total_p90: the same until the job's end."""

    wait_seconds: float
    p50: float
    p90: float
    total_p50: float
    total_p90: float


def predict(
    load: Load, lane: str, tag: float, *, queued: bool = False, least_wait_seconds: float = 0.0
) -> Predicted | None:
    """What a task with this start tag has to expect; None when the record does not know the lane or no slot is up.

    queued: the task itself is among those that wait, so its cost is not ahead of it; least_wait_seconds: what its user
    must wait anyway, for example for the end of own jobs at a cap.
    """
    found = lane_load(load, lane)
    if found is None or found["gpu_seconds_per_second"] <= 0 or load["live_slots"] < 1:
        return None
    ahead = gpu_seconds_before(found["tag_edges"], found["tag_gpu_seconds"], tag)
    if queued and found["queued_tasks"]:
        ahead = max(0.0, ahead - found["queued_gpu_seconds"] / found["queued_tasks"])
    wait = max(least_wait_seconds, ahead / found["gpu_seconds_per_second"])
    rest = found["rest_seconds"]
    floor = floor_seconds(rest, load["capacity"])
    p50 = bound(wait, floor, found["wait_ratio_p50"])
    p90 = max(p50, bound(wait, floor, found["wait_ratio_p90"]))
    total_p50 = max(p50, bound(wait + rest, floor, found["total_ratio_p50"]))
    total_p90 = max(p90, total_p50, bound(wait + rest, floor, found["total_ratio_p90"]))
    return Predicted(wait, p50, p90, total_p50, total_p90)


def predict_for(load: Load, lane: str, user_id: str, *, jobs_before: int = 0, queued: bool = False) -> Predicted | None:
    """The same for a user's task with so many of the user's own in the lane before it; the user's cap counts too."""
    row = _row(load, lane, user_id)
    tag = start_tag(load, lane, user_id, jobs_before)
    least = max(0, jobs_before + 1 - row["places"]) * row["seconds_each"] if row is not None else 0.0
    return predict(load, lane, tag, queued=queued, least_wait_seconds=least)


def start_tag(load: Load, lane: str, user_id: str, jobs_before: int = 0) -> float:
    """The start tag of a user's next task in a lane, or of the one that has so many of the user's own before it. A
    user whom the backlog does not list has little that waits, and stands at the lane's virtual time."""
    row = _row(load, lane, user_id)
    if row is not None:
        return float(row["start_tag"] + jobs_before * row["step"])
    found = lane_load(load, lane)
    return float(found["virtual_time"]) if found is not None else 0.0


def _row(load: Load, lane: str, user_id: str) -> Mapping[str, Any] | None:
    return next((row for row in load["backlog"] if row["user_id"] == user_id and row["lane"] == lane), None)


def lane_load(load: Load, lane: str) -> Mapping[str, Any] | None:
    """A lane's part of the record."""
    return next((row for row in load["lanes"] if row["lane"] == lane), None)


def floor_seconds(rest_seconds: float, capacity: int) -> float:
    """What both sides of a ratio are raised by, so that a tiny prediction gives no huge ratio: a second, and the time
    in which one of `capacity` places becomes free."""
    return LEAST_FLOOR_SECONDS + rest_seconds / max(1, capacity)


def bound(predicted_seconds: float, floor: float, ratio: float) -> float:
    """The time that belongs to a ratio; never negative."""
    return max(0.0, ratio * (predicted_seconds + floor) - floor)


def gpu_seconds_before(edges: Sequence[float], gpu_seconds: Sequence[float], tag: float) -> float:
    """The work with start tags up to `tag`: whole bins below it, and its own bin in proportion. The first bin has no
    width to speak of: it holds what stands at or before the virtual time, and is ahead of everybody."""
    if not gpu_seconds:
        return 0.0
    index = bisect_right(edges, tag) - 1
    if index >= len(gpu_seconds):
        return float(sum(gpu_seconds))
    if index < 1:
        return float(gpu_seconds[0])
    share = (tag - edges[index]) / (edges[index + 1] - edges[index])
    return float(sum(gpu_seconds[:index]) + share * gpu_seconds[index])
