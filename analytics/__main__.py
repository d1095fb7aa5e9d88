"""`python -m analytics`: the sink, from jobs.events to ClickHouse. SIGTERM ends it after the block at hand.

Exit codes: 0 stopped, 1 fatal (another sink has this id, the schema does not fit), 2 bad settings.
"""

import os
import signal
import sys

import structlog
from confluent_kafka import KafkaException

from analytics.migrate import MigrationError
from analytics.settings import SettingsError, SinkSettings
from analytics.sink import Sink
from analytics.store import Store
from schemas.codec import Codec
from schemas.registry import registry_from_url
from streams.clock import SystemClock
from streams.kafka.settings import KafkaSettings
from streams.kafka.settings import SettingsError as KafkaSettingsError
from streams.logs import configure_logs

log = structlog.get_logger(__name__)


def main() -> int:
    """Runs the sink until a signal comes."""
    configure_logs("sink")
    try:
        kafka = KafkaSettings.from_env(os.environ)
        settings = SinkSettings.from_environ(os.environ)
        store = Store(settings.clickhouse_url, settings.prices_file)
    except (SettingsError, KafkaSettingsError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    sink = Sink(kafka, settings, store, Codec(registry_from_url(kafka.registry_url)), SystemClock())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sink.stop())
    try:
        sink.run()
    except (KafkaException, MigrationError, ValueError) as error:
        log.error("sink_failed", error=str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
