"""Commands run in this process against the run's broker."""

from collections.abc import Callable

import pytest

from gateway.cli.__main__ import main
from schemas.codec import Codec
from schemas.topics import catalogue
from streams.kafka.admin import create_topics
from streams.kafka.settings import KafkaSettings

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def settings(kafka_bootstrap: str) -> KafkaSettings:
    """The run's broker, with the catalogue's topics."""
    found = KafkaSettings(bootstrap=kafka_bootstrap)
    create_topics(found, catalogue())
    return found


@pytest.fixture(scope="session")
def codec() -> Codec:
    """The bundled schemas."""
    return Codec()


@pytest.fixture
def meshyard(settings: KafkaSettings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command; gives its exit code, stdout and stderr."""
    monkeypatch.setenv("MESHYARD_KAFKA_BOOTSTRAP", settings.bootstrap)
    monkeypatch.setenv("COLUMNS", "300")

    def run(*argv: str) -> tuple[int, str, str]:
        try:
            code = main(argv)
        except SystemExit as ended:
            code = int(ended.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
