"""Dramatiq with Redis: three actors in a pipeline; messages are acknowledged when they are done."""

from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from tests.benchmarks.peers.job import REDIS_URL, store

broker = RedisBroker(url=REDIS_URL)
dramatiq.set_broker(broker)


def _pass_on(request: dict[str, Any]) -> dict[str, Any]:
    return request


generate = dramatiq.actor(_pass_on, actor_name="generate")
retopology = dramatiq.actor(_pass_on, actor_name="retopology")
texture = dramatiq.actor(store, actor_name="texture")


def send(request: dict[str, Any]) -> None:
    """Starts one job."""
    dramatiq.pipeline([generate.message(request), retopology.message(), texture.message()]).run()
