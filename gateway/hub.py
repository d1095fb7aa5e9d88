"""Who waits for news of which job, and the newest progress of each; belongs to the event loop."""

import asyncio
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

from gateway.problems import Problem
from gateway.tables import JobKey
from schemas.codec import Record

MAX_STREAMS_PER_USER: Final = 100
_MAX_PROGRESS: Final = 50_000
_MAX_RECENT: Final = 10_000


@dataclass(frozen=True, kw_only=True)
class Recent:
    """A request that was just stored. accepted: admission has said so; held_until: when it will release a held one."""

    request: Record
    accepted: bool = False
    held_until: int | None = None


class Subscription:
    """One stream's alarm: `news` is set whenever the job may have changed, and when the gateway drains."""

    def __init__(self) -> None:
        self.news = asyncio.Event()


class Hub:
    """Wakes streams and remembers what the read model does not have: progress, and requests not yet read back."""

    def __init__(self) -> None:
        self.draining = False
        self._streams: defaultdict[JobKey, set[Subscription]] = defaultdict(set)
        self._per_user: Counter[str] = Counter()
        self._progress: OrderedDict[JobKey, Record] = OrderedDict()
        self._recent: OrderedDict[JobKey, Recent] = OrderedDict()

    @contextmanager
    def subscribe(self, job: JobKey) -> Iterator[Subscription]:
        """A subscription for as long as the context lasts. Raises Problem too_many_streams."""
        user_id = job[0]
        if self._per_user[user_id] >= MAX_STREAMS_PER_USER:
            raise Problem(
                "too_many_streams",
                f"this user has {MAX_STREAMS_PER_USER} event streams open",
                "close some of them",
                headers={"retry-after": "5"},
            )
        subscription = Subscription()
        self._streams[job].add(subscription)
        self._per_user[user_id] += 1
        try:
            yield subscription
        finally:
            self._streams[job].discard(subscription)
            if not self._streams[job]:
                del self._streams[job]
            self._per_user[user_id] -= 1
            if not self._per_user[user_id]:
                del self._per_user[user_id]

    def changed(self, jobs: Iterable[JobKey]) -> None:
        """Rows of these jobs were committed."""
        for job in jobs:
            for subscription in self._streams.get(job, ()):
                subscription.news.set()

    def put_progress(self, records: Iterable[Record]) -> None:
        """Newest progress of running jobs."""
        for record in records:
            job = (record["user_id"], record["job_id"])
            self._progress[job] = record
            self._progress.move_to_end(job)
            for subscription in self._streams.get(job, ()):
                subscription.news.set()
        while len(self._progress) > _MAX_PROGRESS:
            self._progress.popitem(last=False)

    def progress(self, job: JobKey) -> Record | None:
        """The newest progress of a job, None when it has sent none lately."""
        return self._progress.get(job)

    def remember(self, request: Record) -> None:
        """A request that was just stored: its job is there for its user before the read model has read it."""
        self._recent.setdefault((request["user_id"], request["job_id"]), Recent(request=request))
        while len(self._recent) > _MAX_RECENT:
            self._recent.popitem(last=False)

    def accepted(self, job: JobKey, held_until: int | None) -> None:
        """Admission has accepted the request; nothing to remember when the read model was faster."""
        found = self._recent.get(job)
        if found is not None:
            self._recent[job] = replace(found, accepted=True, held_until=held_until)

    def forget(self, job: JobKey) -> None:
        """The read model has the job's first event, or admission refused it."""
        self._recent.pop(job, None)

    def recent(self, job: JobKey) -> Recent | None:
        """A request that was just stored, None when the read model knows more."""
        return self._recent.get(job)

    def drain(self) -> None:
        """Ends every stream; clients come again to the next process."""
        self.draining = True
        for subscriptions in self._streams.values():
            for subscription in subscriptions:
                subscription.news.set()
