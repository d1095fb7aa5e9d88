"""Held jobs of one partition: what is due when, what replaces what, and what its user wants done with it."""

from streams.policy.admission_rows import Held
from streams.policy.timers import Timers


class Holds:
    """Held jobs by user_id/job_id. Timers and the index of debounce keys are derived from the rows."""

    def __init__(self) -> None:
        self.rows: dict[str, Held] = {}
        self._timers = Timers()
        self._debounced: dict[tuple[str, str], str] = {}  # user, debounce key -> job

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, held: Held) -> None:
        """A new or changed row."""
        self.rows[held.job] = held
        if held.paused:
            self._timers.cancel((held.job, ""))
        else:
            self._timers.push(held.due_ms, (held.job, ""))
        if held.debounce_key is not None:
            place = (held.user_id, held.debounce_key)
            before = self.rows.get(self._debounced.get(place, ""))
            # Rows come in any order when they are read again: the newest request is the one to be replaced next.
            if before is None or (before.at_ms, before.offset) <= (held.at_ms, held.offset):
                self._debounced[place] = held.job

    def take(self, job: str) -> Held | None:
        """Takes a row out."""
        held = self.rows.pop(job, None)
        if held is None:
            return None
        self._timers.cancel((job, ""))
        if held.debounce_key is not None:
            place = (held.user_id, held.debounce_key)
            if self._debounced.get(place) == job:
                del self._debounced[place]
        return held

    def debounced(self, user_id: str, key: str) -> Held | None:
        """The job that a newer request with this key replaces."""
        return self.rows.get(self._debounced.get((user_id, key), ""))

    def due(self, now_ms: int) -> list[Held]:
        """Takes out what is due, the earliest first; equal times in the order of the requests."""
        found = [held for job, _ in self._timers.pop_due(now_ms) if (held := self.take(job)) is not None]
        return sorted(found, key=lambda held: (held.due_ms, held.at_ms, held.offset))

    def next_due(self) -> int | None:
        """When the next one is due, None when none is."""
        return self._timers.next_due()

    def of_user(self, user_id: str) -> list[Held]:
        """All of a user's."""
        return [held for held in self.rows.values() if held.user_id == user_id]
