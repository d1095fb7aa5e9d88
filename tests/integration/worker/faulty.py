"""The real worker with a fault at one point of its transaction: `FAULT` names it.

`dies_before_commit`: kill -9 when everything has been handed over and reached the broker, but is not committed.
`commit_times_out`: once, a commit that is carried out, though its answer is lost.
"""

import os
import signal
import sys

from confluent_kafka import KafkaError, KafkaException

from inference.__main__ import main
from inference.transactions import SlotProducer
from inference.worker import Worker


class FaultyProducer(SlotProducer):
    """Does harm at the second transaction; the first one is the slot's joining."""

    transactions = 0

    def end_transaction(self, timeout_seconds: float) -> None:
        """Commits, in its way."""
        FaultyProducer.transactions += 1
        if FaultyProducer.transactions == 2 and os.environ["FAULT"] == "dies_before_commit":
            self._producer.flush(timeout_seconds)
            os.kill(os.getpid(), signal.SIGKILL)
        super().end_transaction(timeout_seconds)
        if FaultyProducer.transactions == 2 and os.environ["FAULT"] == "commit_times_out":
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "the answer is lost", False, True))


class FaultyWorker(Worker):
    """A worker whose transactions go through the faulty producer."""

    slot_producer = FaultyProducer


if __name__ == "__main__":
    sys.exit(main(FaultyWorker))
