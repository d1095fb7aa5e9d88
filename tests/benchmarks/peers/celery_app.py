"""Celery with Redis: three tasks in a chain, acknowledged when they are done, so that a killed worker loses none."""

from typing import Any

from celery import Celery, chain

from tests.benchmarks.peers.job import REDIS_URL, store

app = Celery("peers", broker=REDIS_URL)
app.conf.update(
    task_ignore_result=True,
    task_acks_late=True,
    task_serializer="json",
    accept_content=["json"],
    worker_send_task_events=False,
    broker_connection_retry_on_startup=True,
)


def _pass_on(request: dict[str, Any]) -> dict[str, Any]:
    return request


generate = app.task(_pass_on, name="generate")
retopology = app.task(_pass_on, name="retopology")
texture = app.task(store, name="texture")


def send(request: dict[str, Any]) -> None:
    """Starts one job."""
    chain(generate.s(request), retopology.s(), texture.s()).apply_async()
