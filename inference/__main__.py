"""`python -m inference --pool P --slot N [--synthetic]`: one slot's worker."""

import argparse
import signal
import sys
from typing import Any

import structlog
from confluent_kafka import KafkaException

from inference.runner import ChildWillNotLoad
from inference.settings import WorkerSettings
from inference.worker import Worker
from schemas.codec import Codec
from schemas.errors import RegistryError
from schemas.registry import registry_from_url
from streams.kafka.settings import KafkaSettings, SettingsError
from streams.logs import configure_logs
from streams.objects import ObjectStore

log = structlog.get_logger("inference")


def main(worker_class: type[Worker] = Worker) -> int:
    """Runs a worker until SIGTERM; the exit code: 0 drained, 1 failed or fenced, 2 bad settings."""
    parser = argparse.ArgumentParser(prog="python -m inference", description="Run the worker of one slot.")
    parser.add_argument("--pool", help="the slot's pool (default: MESHYARD_POOL)")
    parser.add_argument("--slot", type=int, help="the slot's number, from 0 (default: MESHYARD_SLOT)")
    parser.add_argument("--capacity", type=int, help="tasks at once (default: MESHYARD_CAPACITY, else 1)")
    parser.add_argument("--synthetic", action="store_true", help="serve the synthetic pipeline; loads no torch")
    arguments = parser.parse_args()
    configure_logs("worker")
    try:
        settings = WorkerSettings.from_env(
            pool=arguments.pool, slot=arguments.slot, capacity=arguments.capacity, synthetic=arguments.synthetic
        )
        kafka = KafkaSettings.from_env()
        store = ObjectStore.from_env()
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    try:
        worker = worker_class(settings, kafka, store, Codec(registry_from_url(kafka.registry_url)))
        stop_on_signals(worker)
        return worker.run()
    except (ChildWillNotLoad, KafkaException, RegistryError) as error:
        log.error("worker_failed", error=str(error), slot=settings.slot)
    except Exception:
        log.exception("worker_failed", slot=settings.slot)
    return 1


def stop_on_signals(worker: Worker) -> None:
    """SIGTERM and SIGINT drain the worker."""

    def handle(_number: int, _frame: Any) -> None:
        worker.stop()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)


if __name__ == "__main__":
    sys.exit(main())
