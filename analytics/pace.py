"""How long a block waits for more rows."""

from dataclasses import dataclass
from typing import Final

_FIRST_LINGER_SECONDS: Final = 0.05  # the first record after a pause does not wait for others


@dataclass(kw_only=True)
class Pace:
    """The pace of one partition's blocks; times are monotonic seconds.

    What a block costs ClickHouse hardly depends on its size, so under steady load blocks grow rarer and larger: from
    `shortest_seconds` apart to `longest_seconds`. Behind a pause the first one is quick again.
    """

    shortest_seconds: float
    longest_seconds: float
    _apart_seconds: float = 0.0
    _last: float = float("-inf")

    def due(self, now: float) -> float:
        """When the block closes whose first record was read now; asked once a block."""
        if now - self._last > max(self._apart_seconds, self.shortest_seconds):
            self._apart_seconds = 0.0
            return now + _FIRST_LINGER_SECONDS
        self._apart_seconds = max(self.shortest_seconds, min(2 * self._apart_seconds, self.longest_seconds))
        return max(now + _FIRST_LINGER_SECONDS, self._last + self._apart_seconds)

    def stored(self, now: float) -> None:
        """A block is in."""
        self._last = now
