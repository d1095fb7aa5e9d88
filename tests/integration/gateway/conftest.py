"""A gateway process on the run's broker, with its counterparts."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from streams.kafka.settings import KafkaSettings
from tests.integration.gateway.counterpart import Counterpart
from tests.integration.gateway.process import GatewayProcess, wait_for


@pytest.fixture(scope="package")
def counterpart(kafka_bootstrap: str) -> Iterator[Counterpart]:
    """Admission and scheduler, under a domain of this run's own."""
    settings = KafkaSettings(bootstrap=kafka_bootstrap, domain=f"domain-{uuid.uuid4().hex[:8]}")
    with Counterpart(settings) as playing:
        yield playing


@pytest.fixture(scope="package")
def gateway(
    kafka_bootstrap: str, counterpart: Counterpart, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    """The gateway that most tests ask."""
    process = GatewayProcess(kafka_bootstrap, counterpart.settings.domain, tmp_path_factory.mktemp("gateway"))
    process.start()
    yield process
    assert process.stop() == 0


@pytest.fixture
def user_id() -> str:
    """A user whom no other test knows."""
    return f"user-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def client(gateway: GatewayProcess, counterpart: Counterpart, user_id: str) -> Iterator[httpx.Client]:
    """That user's client."""
    with known_client(gateway, counterpart.tenant(user_id)) as found:
        yield found


@contextmanager
def known_client(gateway: GatewayProcess, key: str) -> Iterator[httpx.Client]:
    """A client whose key the gateway has read."""
    with gateway.client(key) as client:
        wait_for(lambda: client.get("/v1/jobs").status_code == 200, "the key to be known")
        yield client
