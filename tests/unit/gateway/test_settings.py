"""The gateway's settings from the environment."""

from pathlib import Path

import pytest

from gateway.settings import GatewaySettings
from streams.kafka.settings import SettingsError


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    key = tmp_path / "key"
    key.write_text("ab" * 32 + "\n")
    return {
        "MESHYARD_KAFKA_BOOTSTRAP": "127.0.0.1:9092",
        "MESHYARD_DATA_DIR": str(tmp_path),
        "MESHYARD_OBJECTS_URL": f"file://{tmp_path}/objects",
        "MESHYARD_SERVER_KEY_FILE": str(key),
    }


def test_the_least_environment(env: dict[str, str], tmp_path: Path) -> None:
    found = GatewaySettings.from_env(env)
    assert (found.host, found.port, found.answer_timeout_ms) == ("127.0.0.1", 8080, 250)
    assert (found.data_dir, found.server_key) == (tmp_path, b"\xab" * 32)
    assert "abab" not in repr(found)
    assert "\\xab" not in repr(found)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MESHYARD_DATA_DIR", None),
        ("MESHYARD_OBJECTS_URL", None),
        ("MESHYARD_OBJECTS_URL", "/tmp"),
        ("MESHYARD_SERVER_KEY_FILE", None),
        ("MESHYARD_SERVER_KEY_FILE", "/nonexistent"),
        ("MESHYARD_GATEWAY_PORT", "http"),
        ("MESHYARD_GATEWAY_PORT", "70000"),
        ("MESHYARD_ANSWER_TIMEOUT_MS", "0"),
        ("MESHYARD_LOG_FORMAT", "xml"),
        ("MESHYARD_KAFKA_BOOTSTRAP", None),
    ],
)
def test_an_error_names_the_variable(env: dict[str, str], variable: str, value: str | None) -> None:
    env.pop(variable, None)
    if value is not None:
        env[variable] = value
    with pytest.raises(SettingsError, match=variable):
        GatewaySettings.from_env(env)


@pytest.mark.parametrize("text", ["", "ab" * 31, "not hex"])
def test_a_bad_server_key_is_not_shown(env: dict[str, str], text: str) -> None:
    Path(env["MESHYARD_SERVER_KEY_FILE"]).write_text(text)
    with pytest.raises(SettingsError) as caught:
        GatewaySettings.from_env(env)
    assert not text or text not in str(caught.value)
