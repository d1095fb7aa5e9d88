"""A domain of its own for each test: inbox, work topic, snapshots, and the scheduler's process."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from schemas.codec import Codec
from schemas.topics import catalogue
from streams.kafka.admin import create_topics
from streams.kafka.settings import KafkaSettings
from tests.support.roles import Role


@pytest.fixture
def settings(kafka_bootstrap: str) -> KafkaSettings:
    """Settings of a domain that no other test has, with its topics."""
    found = KafkaSettings(bootstrap=kafka_bootstrap, domain=f"d{uuid.uuid4().hex[:8]}")
    create_topics(found, catalogue(domains=(found.domain,)))
    return found


@pytest.fixture(scope="session")
def codec() -> Codec:
    """The bundled schemas."""
    return Codec()


@pytest.fixture
def env(settings: KafkaSettings, tmp_path: Path) -> dict[str, str]:
    """The environment of the domain's roles."""
    return {
        "MESHYARD_KAFKA_BOOTSTRAP": settings.bootstrap,
        "MESHYARD_DOMAIN": settings.domain,
        "MESHYARD_OBJECTS_URL": f"file://{tmp_path / 'objects'}",
        "MESHYARD_DATA_DIR": str(tmp_path / "data"),
        "MESHYARD_TRUST_TOPIC": "1",
        # Tests share jobs.events: jobs of other tests' domains would be taken for forgotten ones of this domain.
        "MESHYARD_RECONCILE_SECONDS": "3600",
    }


@pytest.fixture
def start_role(env: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., Role]]:
    """Starts `python -m ...` and stops it at the end."""
    started: list[Role] = []

    def start(*arguments: str, **more: str) -> Role:
        role = Role(list(arguments), {**env, **more}, tmp_path / f"{'-'.join(arguments)}.log".replace("/", "_"))
        started.append(role)
        role.start()
        return role

    yield start
    for role in started:
        if role.process is not None and role.process.poll() is None:
            role.kill()
