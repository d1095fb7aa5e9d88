"""Reads the slot's work partition in a thread of its own, so that the worker can wait for work and for its child at
once, and neither waits for the other."""

import os
import threading
from collections import deque
from typing import Final

from confluent_kafka import Consumer, Message, TopicPartition

POLL_SECONDS: Final = 0.25  # how late a closing reader ends
_MOST_RECORDS: Final = 100


class WorkReader:
    """Follows one partition from `start` to `close`. `fileno` is readable while `take` has something to give.

    Nobody else uses the consumer meanwhile, but for offsets in transactions.
    """

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._read: deque[Message] = deque()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def started(self) -> bool:
        """Whether it reads."""
        return self._thread is not None

    def fileno(self) -> int:
        """For select."""
        return self._bell

    def start(self, place: TopicPartition) -> None:
        """Reads from this offset on."""
        self._consumer.assign([place])
        self._thread = threading.Thread(target=self._run, name="work", daemon=True)
        self._thread.start()

    def take(self) -> list[Message]:
        """What has been read since the last call, in order; errors among it. Does not wait."""
        try:
            os.eventfd_read(self._bell)
        except BlockingIOError:
            return []
        taken = []
        while self._read:
            taken.append(self._read.popleft())
        return taken

    def close(self) -> None:
        """Reads no more and closes the consumer."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        self._consumer.close()
        os.close(self._bell)

    def _run(self) -> None:
        while not self._stopping.is_set():
            message = self._consumer.poll(POLL_SECONDS)
            if message is None:
                continue
            self._read.append(message)
            self._read.extend(self._consumer.consume(_MOST_RECORDS, 0))
            os.eventfd_write(self._bell, 1)
