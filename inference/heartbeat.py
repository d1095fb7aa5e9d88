"""Signs of life: a thread that tells each second what the slot does, whatever the worker is waiting for."""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

import structlog
from confluent_kafka import Producer

from inference.process import rss_bytes
from schemas.codec import Codec
from schemas.topics import HEARTBEATS
from streams.clock import Clock

log = structlog.get_logger(__name__)

INTERVAL_SECONDS: Final = 1.0

State = Literal["loading", "idle", "busy", "stopping"]


@dataclass(frozen=True, kw_only=True)
class SlotView:
    """What a heartbeat tells; fields of the Avro record."""

    epoch: int
    state: State
    dispatch_ids: tuple[str, ...]
    last_work_offset: int
    child_pid: int


class Heartbeat:
    """Beats from `start` to `stop`.

    lease_seconds: after so long a silence the slot may have been given up. `view` is called from the beating thread and
    must be cheap and safe there.
    """

    def __init__(
        self,
        producer: Producer,
        codec: Codec,
        clock: Clock,
        *,
        domain: str,
        slot: int,
        pool: str,
        lease_seconds: float,
        view: Callable[[], SlotView],
    ) -> None:
        self._producer = producer
        self._codec = codec
        self._clock = clock
        self._fixed = {"domain": domain, "slot": slot, "pool": pool}
        self._lease_seconds = lease_seconds
        self._view = view
        self._wake = threading.Condition()
        self._asked = False
        self._stopping = False
        self._acked_at = time.monotonic()
        self._gap_seconds = 0.0
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Begins to beat, at once."""
        self._thread.start()

    def beat_now(self) -> None:
        """Beats without waiting for the next second: the slot's state has changed for long."""
        with self._wake:
            self._asked = True
            self._wake.notify()

    def take_gap(self) -> bool:
        """Whether acknowledged beats were so far apart since the last call that the slot may have been given up."""
        gap = self._gap_seconds
        self._gap_seconds = 0.0
        return gap >= self._lease_seconds

    def stop(self) -> None:
        """Beats no more. The last beat is on its way when this returns."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            try:
                self._beat()
            except Exception:  # a thread that dies silently would cost the slot its work
                log.exception("heartbeat_failed")
            with self._wake:
                if not self._asked and not self._stopping:
                    self._wake.wait(INTERVAL_SECONDS)
                self._asked = False
                if self._stopping:
                    return

    def _beat(self) -> None:
        view = self._view()
        record = {
            **self._fixed,
            "epoch": view.epoch,
            "state": view.state,
            "dispatch_ids": list(view.dispatch_ids),
            "last_work_offset": view.last_work_offset,
            "rss_bytes": rss_bytes(os.getpid()) + rss_bytes(view.child_pid),
            "at": self._clock.now_ms(),
        }

        def delivered(error: Any, _message: Any) -> None:
            if error is None:
                # By arrival, not by sending: beats that queue up while the broker is away arrive all at once.
                now = time.monotonic()
                self._gap_seconds = max(self._gap_seconds, now - self._acked_at)
                self._acked_at = now

        value = self._codec.encode("slot_heartbeat", record)
        self._producer.produce(HEARTBEATS, key=str(self._fixed["slot"]), value=value, on_delivery=delivered)
        self._producer.poll(0)
