"""Users of one benchmark run: without limits that would be measured instead of the system, and gone after it."""

import secrets
import time
from types import TracebackType
from typing import Final

from confluent_kafka import KafkaException, Producer

from gateway.keys import new_api_key
from schemas.codec import Codec
from schemas.topics import TENANTS
from streams.kafka.producer import producer_config
from streams.kafka.settings import KafkaSettings

ACK_SECONDS: Final = 30.0
NO_LIMIT: Final = 1_000_000


class BenchUsers:
    """Use it as a context manager: makes the users, and at the end removes them and so their keys.

    prefix: how their user ids begin; ids: these; keys: an API key for each. Raises KafkaException.
    """

    def __init__(self, kafka: KafkaSettings, count: int) -> None:
        self.prefix = f"bench-{secrets.token_hex(4)}-"
        self.keys: tuple[str, ...] = ()
        self._kafka = kafka
        self.ids = tuple(f"{self.prefix}{number}" for number in range(count))

    def __enter__(self) -> "BenchUsers":
        codec = Codec()
        texts, records = [], {}
        for user_id in self.ids:
            text, key = new_api_key()
            texts.append(text)
            tenant = {
                "user_id": user_id,
                "tier": "pro",
                "weight": 1.0,
                "requests_per_minute": 60.0 * NO_LIMIT,
                "burst_requests": NO_LIMIT,
                "scopes": ["jobs", "synthetic"],
                "keys": [key],
                "updated_at": time.time_ns() // 1_000_000,
            }
            records[user_id] = codec.encode("tenant", tenant)
        self._write(records)
        self.keys = tuple(texts)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._write(dict.fromkeys(self.ids))

    def _write(self, records: dict[str, bytes] | dict[str, None]) -> None:
        failures: list[KafkaException] = []
        producer = Producer(producer_config(self._kafka))
        for user_id, value in records.items():
            producer.produce(
                TENANTS,
                key=user_id,
                value=value,
                on_delivery=lambda failure, _: failures.append(KafkaException(failure)) if failure else None,
            )
        if producer.flush(ACK_SECONDS):
            raise TimeoutError(f"Kafka did not take the benchmark's users within {ACK_SECONDS:.0f} s")
        if failures:
            raise failures[0]
