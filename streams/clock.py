"""The time, for shells. Policy code takes `now` as an argument and never looks here."""

import time
from typing import Protocol


class Clock(Protocol):
    """Tells the time; tests bring their own."""

    def now_ms(self) -> int:
        """Milliseconds since 1970, UTC."""

    def monotonic_seconds(self) -> float:
        """Seconds that only grow; for durations."""


class SystemClock:
    """The machine's clocks."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_seconds(self) -> float:
        return time.monotonic()
