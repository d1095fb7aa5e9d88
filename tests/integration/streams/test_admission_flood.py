"""What a request costs admission in a flood."""

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from schemas.codec import Codec
from schemas.topics import schedule_topic
from streams.kafka.consumer import end_offset, read_range
from streams.kafka.settings import KafkaSettings
from tests.integration.streams.admission_upstream import Upstream
from tests.support.roles import Role, wait_until

REQUESTS = 20_000
USERS = 20


@pytest.mark.bench
def test_a_request_costs_little_in_a_flood(
    settings: KafkaSettings, codec: Codec, start_role: Callable[..., Role]
) -> None:  # fmt: skip
    """20,000 requests of 20 users at once: CPU milliseconds of admission's process a request, all threads."""
    users = [Upstream(settings, codec) for _ in range(USERS)]
    for user in users:
        user.tenant()
    admission = start_role("streams", "admission")
    wait_until(lambda: '"role_started"' in admission.log(), "it runs")
    assert admission.process is not None
    spent = partial(_cpu_seconds, admission.process.pid)
    before, begun = spent(), time.monotonic()
    for _ in range(REQUESTS // USERS):
        for user in users:
            user.send(user.request())
    for user in users:
        user.producer.flush(60)
    wait_until(lambda: _given(settings, codec) == REQUESTS, "all are in the inbox")
    seconds, wall = spent() - before, time.monotonic() - begun
    print(
        f"\n{1000 * seconds / REQUESTS:.3f} CPU ms a request, {REQUESTS / wall:,.0f} requests/s beside their producers"
    )
    assert seconds / REQUESTS < 0.0007
    assert admission.stop() == 0


def _given(settings: KafkaSettings, codec: Codec) -> int:
    """Jobs in the domain's inbox."""
    topic, count = schedule_topic(settings.domain), 0
    for message in read_range(settings, topic, 0, end=end_offset(settings, topic, 0)):
        value = message.value()
        assert isinstance(value, bytes)
        count += sum(entry["kind"] == "stage_ready" for entry in codec.decode(value)["entries"])
    return count


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
