"""What is due when: one structure for held jobs, retry delays and deadlines. Derived from rows; it holds no state of
its own that a restart must keep."""

import heapq

Key = tuple[str, str]


class Timers:
    """Keys with a time. A key has one time at once: pushing it again moves it. All calls cost O(log n)."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, Key]] = []
        self._due: dict[Key, int] = {}

    def __len__(self) -> int:
        return len(self._due)

    def push(self, due_ms: int, key: Key) -> None:
        """The key becomes due at `due_ms`."""
        self._due[key] = due_ms
        heapq.heappush(self._heap, (due_ms, key))
        if len(self._heap) > 2 * len(self._due) + 64:  # moved and canceled ones are swept out before they pile up
            self._heap = [(due, key) for key, due in self._due.items()]
            heapq.heapify(self._heap)

    def cancel(self, key: Key) -> bool:
        """Forgets a key; False when it was not there."""
        return self._due.pop(key, None) is not None

    def due_of(self, key: Key) -> int | None:
        """When a key is due."""
        return self._due.get(key)

    def next_due(self) -> int | None:
        """The earliest time, None when nothing waits."""
        self._drop_stale()
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now_ms: int) -> list[Key]:
        """Takes out what is due at `now_ms`, the earliest first; equal times in the order of their keys."""
        due = []
        self._drop_stale()
        while self._heap and self._heap[0][0] <= now_ms:
            _, key = heapq.heappop(self._heap)
            del self._due[key]
            due.append(key)
            self._drop_stale()
        return due

    def _drop_stale(self) -> None:
        heap = self._heap
        while heap and self._due.get(heap[0][1]) != heap[0][0]:
            heapq.heappop(heap)
