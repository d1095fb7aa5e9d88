"""When a gateway refuses requests by itself, and what it says is missing; no Kafka is there."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.answers import LAG_REQUESTS, LAG_SECONDS
from gateway.load import FRESH_SECONDS, REFUSE_SECONDS
from gateway.problems import Problem
from gateway.services import Services
from gateway.settings import GatewaySettings
from streams.kafka.settings import KafkaSettings


class StandingClock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.ms = 1_000_000

    def now_ms(self) -> int:
        return self.ms

    def monotonic_seconds(self) -> float:
        return self.ms / 1000


@pytest.fixture
def clock() -> StandingClock:
    return StandingClock()


@pytest.fixture
def services(tmp_path: Path, clock: StandingClock) -> Services:
    settings = GatewaySettings(
        kafka=KafkaSettings(bootstrap="127.0.0.1:1"),
        data_dir=tmp_path,
        objects_url=f"file://{tmp_path}",
        server_key=bytes(32),
    )
    return Services(settings, clock)


def missing(services: Services) -> set[str]:
    async def ask() -> set[str]:
        return {item["name"] for item in services.missing()}

    return asyncio.run(ask())


def refusal(services: Services) -> str | None:
    async def ask() -> str | None:
        try:
            services.ensure_accepting()
            services.ensure_scheduled("assembly")
        except Problem as problem:
            return problem.code if "retry-after" in problem.headers else "no retry-after"
        return None

    return asyncio.run(ask())


def test_a_silent_scheduler_first_ends_readiness_and_then_requests(services: Services, clock: StandingClock) -> None:
    assert "scheduler" in missing(services)
    services.loads.apply({"domain": "main", "at": clock.ms, "backlog": []})
    assert "scheduler" not in missing(services)
    clock.ms += int(FRESH_SECONDS * 1000) + 1
    assert "scheduler" in missing(services)
    assert refusal(services) is None
    clock.ms += int((REFUSE_SECONDS - FRESH_SECONDS) * 1000)
    assert refusal(services) == "overloaded"


def test_each_domain_is_looked_at_by_itself(tmp_path: Path, clock: StandingClock) -> None:
    settings = GatewaySettings(
        kafka=KafkaSettings(bootstrap="127.0.0.1:1", domain="main", domains=("main", "load-tests")),
        data_dir=tmp_path,
        objects_url=f"file://{tmp_path}",
        server_key=bytes(32),
        domain_of={"synthetic": "load-tests"},
    )
    services = Services(settings, clock)
    clock.ms += int(REFUSE_SECONDS * 1000) + 1
    services.loads.apply({"domain": "main", "at": clock.ms, "backlog": []})
    services.loads.apply({"domain": "nobody", "at": clock.ms, "backlog": []})
    assert refusal(services) is None
    with pytest.raises(Problem, match="silent"):
        services.ensure_scheduled("synthetic")
    assert services.loads.of("synthetic") is services.loads.domains["load-tests"]
    (silent,) = (item for item in asyncio.run(told(services)) if item["name"] == "scheduler")
    assert "of load-tests" in silent["detail"]


async def told(services: Services) -> list[dict[str, str]]:
    return services.missing()


def test_lagging_answers_end_readiness_and_requests(services: Services) -> None:
    async def scenario() -> None:
        now = asyncio.get_running_loop().time()
        for n in range(LAG_REQUESTS):
            services.answers.lag.missed(now - LAG_SECONDS + n / 1000)
        assert "admission" in {item["name"] for item in services.missing()}
        services.ensure_accepting()  # the probe
        with pytest.raises(Problem, match="overloaded"):
            services.ensure_accepting()

    asyncio.run(scenario())


def test_a_draining_gateway_takes_nothing(services: Services) -> None:
    services.hub.drain()
    assert "draining" in missing(services)
    assert refusal(services) == "starting"


def test_a_failed_feed_ends_the_process(services: Services) -> None:
    ended = []
    services.on_fatal = lambda: ended.append(True)
    services.on_failed(OSError("disk full"))
    assert ended
    assert "feed" in missing(services)


def test_the_process_imports_neither_torch_nor_faust() -> None:
    code = "import sys, gateway.__main__; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "gateway.app" in loaded
    assert not loaded & {"torch", "faust", "aiokafka", "numpy", "chdb", "clickhouse_driver", "trimesh"}
