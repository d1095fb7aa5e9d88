"""Keeps admission's segments few and young: small ones are put together, old ones lose what nobody needs any more.

What may be forgotten: a refusal once its record cannot come again; an ended job a day after it came; what ended a job
that is forgotten; a bucket that is full again. What stays is written anew before the old rows are deleted, in one
partition of one topic and so in this order: a crash in between leaves both, and reading both gives the same.
"""

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from streams.policy.admission import KEY_LIFE_MS, SKEW_MS, Ledger
from streams.policy.admission_rows import Accepted, End, Segment, UserRow

# Offsets are committed every second: a record that was decided so long ago does not come again.
REFUSAL_LIFE_MS: Final = 120_000
GATHER_ITEMS: Final = 1_000
GATHER_SEGMENTS: Final = 16
GATHER_SPAN_MS: Final = 3_600_000
MAX_ITEMS_A_SWEEP: Final = 20_000

IsFull = Callable[[str, UserRow], bool]


class Extent(NamedTuple):
    """What is known of a stored segment without reading it."""

    topic: str
    oldest_ms: int
    newest_ms: int
    items: int


def extent(segment: Segment) -> Extent:
    """The extent of a segment."""
    return Extent(segment.topic, segment.oldest_ms, segment.newest_ms, len(segment))


def sweep_plan(stored: dict[str, Extent], now_ms: int) -> list[list[str]]:
    """Keys of segments that should be written anew as one each; so few that a sweep stays short."""
    by_topic: dict[str, list[tuple[str, Extent]]] = {}
    for key, found in stored.items():
        by_topic.setdefault(found.topic, []).append((key, found))
    plan: list[list[str]] = []
    budget = MAX_ITEMS_A_SWEEP
    for segments in by_topic.values():
        segments.sort(key=lambda item: item[1].newest_ms)
        old = [item for item in segments if item[1].newest_ms < now_ms - KEY_LIFE_MS]
        settled = [item for item in segments[len(old) :] if item[1].newest_ms < now_ms - REFUSAL_LIFE_MS]
        for group in (*([item] for item in old), *_gathered(settled)):
            budget -= sum(found.items for _, found in group)
            if budget < 0 and plan:
                return plan
            plan.append([key for key, _ in group])
    return plan


def _gathered(segments: Iterable[tuple[str, Extent]]) -> list[list[tuple[str, Extent]]]:
    """Neighbours that together make a segment of a good size."""
    groups: list[list[tuple[str, Extent]]] = []
    group: list[tuple[str, Extent]] = []
    items = 0
    for item in segments:
        found = item[1]
        if found.items >= GATHER_ITEMS:
            continue
        oldest = group[0][1].oldest_ms if group else found.oldest_ms
        if group and (items + found.items > GATHER_ITEMS or found.newest_ms - oldest > GATHER_SPAN_MS):
            groups.append(group)
            group, items = [], 0
        group.append(item)
        items += found.items
    groups.append(group)
    # A group that may still grow waits, so that no row is rewritten for each new neighbour.
    return [g for n, g in enumerate(groups) if len(g) >= GATHER_SEGMENTS or (len(g) > 1 and n < len(groups) - 1)]


def rewrite(ledger: Ledger, segments: list[Segment], now_ms: int, is_full: IsFull) -> Segment | None:
    """What is left of segments of one topic, as one; None if nothing is. Forgets the rest in the ledger too."""
    topic = segments[0].topic
    kept = Segment(topic=topic, oldest_ms=now_ms, newest_ms=max(segment.newest_ms for segment in segments))
    if kept.newest_ms < now_ms - KEY_LIFE_MS:
        kept.newest_ms = now_ms  # looked at again in a day
    for segment in segments:
        kept.accepted += [taken for taken in segment.accepted if _needed(ledger, topic, taken, now_ms)]
        for refused in segment.refused:
            if refused.at_ms >= now_ms - REFUSAL_LIFE_MS:
                kept.refused.append(refused)
            else:
                ledger.refused.pop((topic, refused.offset), None)
    for segment in segments:
        kept.ends += [end for end in segment.ends if _ends(ledger, end, now_ms)]
        for user_id, row in segment.users.items():
            if ledger.users.get(user_id) == row:
                if is_full(user_id, row):
                    del ledger.users[user_id]
                else:
                    kept.users[user_id] = row
    if not len(kept):
        return None
    kept.oldest_ms = min(
        (item.at_ms for items in (kept.accepted, kept.refused, kept.ends) for item in items), default=kept.newest_ms
    )
    return kept


def _needed(ledger: Ledger, topic: str, taken: Accepted, now_ms: int) -> bool:
    job = ledger.jobs.get(taken.job)
    if job is None or (job.topic, job.taken.offset) != (topic, taken.offset):
        return False  # of an earlier life of the same id
    if job.state == "closed" and taken.at_ms < now_ms - KEY_LIFE_MS:
        del ledger.jobs[taken.job]
        return False
    return True


def _ends(ledger: Ledger, end: End, now_ms: int) -> bool:
    job = ledger.jobs.get(end.job)
    if job is not None and end.at_ms >= job.taken.at_ms - SKEW_MS:
        return True
    if end.at_ms >= now_ms - KEY_LIFE_MS:
        return True
    if ledger.early.get(end.job) == end:
        del ledger.early[end.job]
    return False
