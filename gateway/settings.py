"""What the gateway is told at start; one frozen record, read from the environment once."""

import binascii
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from streams.kafka.settings import KafkaSettings, SettingsError, domain_map, positive_int

SERVER_KEY_BYTES = 32


@dataclass(frozen=True, kw_only=True)
class GatewaySettings:
    """Settings of one gateway process.

    kafka: the brokers; host, port: where it listens, port 0 takes a free one; gateway_id: its name in logs and in
    Kafka's client statistics; domain_of: pipelines of other domains than the first; data_dir: private files, the read
    model among them; keep_days: how long the read model knows jobs that have ended; objects_url: the object store;
    server_key: the HMAC key from which job ids and request signatures come, the same for every gateway of an
    installation; answer_timeout_ms: how long a request waits for admission; access_log: one line a request.
    """

    kafka: KafkaSettings
    host: str = "127.0.0.1"
    port: int = 8080
    gateway_id: str = "gateway-0"
    domain_of: Mapping[str, str] = field(default_factory=dict)
    data_dir: Path
    keep_days: int = 30
    objects_url: str
    server_key: bytes = field(repr=False)
    answer_timeout_ms: int = 250
    access_log: bool = False
    log_format: str = "json"

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> "GatewaySettings":
        """Reads MESHYARD_*. Raises SettingsError, which names the variable and the remedy."""
        data_dir = env.get("MESHYARD_DATA_DIR")
        if not data_dir:
            raise SettingsError("MESHYARD_DATA_DIR", "not set; give a directory for the gateway's read model")
        objects_url = env.get("MESHYARD_OBJECTS_URL")
        if not objects_url or "://" not in objects_url:
            raise SettingsError("MESHYARD_OBJECTS_URL", "not set; give file:///directory or s3://bucket/prefix")
        log_format = env.get("MESHYARD_LOG_FORMAT", "json")
        if log_format not in ("json", "console"):
            raise SettingsError("MESHYARD_LOG_FORMAT", f"{log_format!r} is unknown; give json or console")
        kafka = KafkaSettings.from_env(env)
        return cls(
            kafka=kafka,
            host=env.get("MESHYARD_GATEWAY_HOST", "127.0.0.1"),
            port=_port(env),
            gateway_id=env.get("MESHYARD_GATEWAY_ID", "gateway-0"),
            domain_of=domain_map(env, kafka.every_domain),
            data_dir=Path(data_dir),
            keep_days=positive_int(env, "MESHYARD_GATEWAY_KEEP_DAYS", 30),
            objects_url=objects_url,
            server_key=_server_key(env),
            answer_timeout_ms=positive_int(env, "MESHYARD_ANSWER_TIMEOUT_MS", 250),
            access_log=env.get("MESHYARD_GATEWAY_ACCESS_LOG", "0") == "1",
            log_format=log_format,
        )


def _port(env: Mapping[str, str]) -> int:
    text = env.get("MESHYARD_GATEWAY_PORT", "8080")
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise SettingsError("MESHYARD_GATEWAY_PORT", f"{text!r} is no port; give a number from 0 to 65535")
    return int(text)


def _server_key(env: Mapping[str, str]) -> bytes:
    variable = "MESHYARD_SERVER_KEY_FILE"
    remedy = f"give a file that holds {SERVER_KEY_BYTES} random bytes as {2 * SERVER_KEY_BYTES} hex digits"
    path = env.get(variable)
    if not path:
        raise SettingsError(variable, f"not set; {remedy}")
    try:
        key = binascii.unhexlify(Path(path).read_text().strip())
    except OSError as error:
        raise SettingsError(variable, f"{path}: {error.strerror}; {remedy}") from error
    except ValueError:
        raise SettingsError(variable, f"{path} holds no hex digits; {remedy}") from None
    if len(key) < SERVER_KEY_BYTES:
        raise SettingsError(variable, f"{path} holds {len(key)} bytes; {remedy}")
    return key
