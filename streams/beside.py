"""A thread beside a role: it listens to Kafka on its own, and must not die unnoticed."""

import threading
from collections.abc import Callable

import structlog

log = structlog.get_logger(__name__)


class Beside:
    """Runs `run` in a daemon thread from `start` to `stop`; `fail` hears of the exception that ends it early.

    `run` looks at `stopping` at least each half second.
    """

    name = "beside"

    def __init__(self, fail: Callable[[BaseException], None]) -> None:
        self._fail = fail
        self.stopping = threading.Event()
        self._thread = threading.Thread(target=self._guarded, name=self.name, daemon=True)

    def run(self) -> None:
        """What the thread does."""
        raise NotImplementedError

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread and waits for it."""
        self.stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _guarded(self) -> None:
        try:
            self.run()
        except BaseException as error:
            log.exception("thread_failed", thread=self.name)
            self._fail(error)
