"""Settings of the streams roles, read from the environment once."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from streams.kafka.settings import KafkaSettings, SettingsError, domain_map, positive_int
from streams.policy.config import DEFAULT, Policy, load_policy


@dataclass(frozen=True, kw_only=True)
class StreamsSettings:
    """What admission and scheduler need.

    shard, shards: of admission; trust_topic: requests that come over Kafka need no signature, because the topic's ACLs
    (or a loopback listener) say who may write; server_key: HMAC key shared with the gateways, needed without trust;
    objects_url: where snapshots go; snapshot_entries, snapshot_seconds: a snapshot is taken after so many inbox
    entries or so long; slot_grace_seconds: silence after which a slot is declared lost; data_dir: Faust's scratch;
    domain_of: pipeline -> its domain, where that is not the first of kafka.every_domain; policy_file: TOML with the
    scheduling policy, None for the built-in one; reconcile_seconds: how often the reconciler compares what was
    accepted with what the scheduler knows; reconcile_after_seconds: how old an accepted job must be before it counts
    as forgotten.
    """

    kafka: KafkaSettings
    objects_url: str
    data_dir: Path
    shard: int = 0
    shards: int = 1
    trust_topic: bool = False
    server_key: bytes | None = field(default=None, repr=False)
    snapshot_entries: int = 100_000
    snapshot_seconds: float = 600.0
    slot_grace_seconds: float = 10.0
    domain_of: Mapping[str, str] = field(default_factory=dict)
    policy_file: Path | None = None
    reconcile_seconds: float = 30.0
    reconcile_after_seconds: float = 60.0

    def domain_for(self, pipeline_id: str) -> str:
        """The domain that schedules a pipeline's jobs."""
        return self.domain_of.get(pipeline_id, self.kafka.every_domain[0])

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ, *, shard: int = 0, shards: int = 1) -> "StreamsSettings":
        """Reads MESHYARD_*. Raises SettingsError."""
        objects_url = env.get("MESHYARD_OBJECTS_URL")
        if not objects_url:
            raise SettingsError("MESHYARD_OBJECTS_URL", "not set; give file:///directory or s3://bucket/prefix")
        trust = env.get("MESHYARD_TRUST_TOPIC", "0") == "1"
        key_file = env.get("MESHYARD_SERVER_KEY_FILE")
        if not trust and not key_file:
            raise SettingsError(
                "MESHYARD_SERVER_KEY_FILE", "not set; give the key file of the gateways, or MESHYARD_TRUST_TOPIC=1"
            )
        kafka = KafkaSettings.from_env(env)
        policy_file = env.get("MESHYARD_POLICY_FILE")
        return cls(
            kafka=kafka,
            objects_url=objects_url,
            data_dir=Path(env.get("MESHYARD_DATA_DIR", ".meshyard")) / "faust",
            shard=shard,
            shards=shards,
            trust_topic=trust,
            server_key=bytes.fromhex(Path(key_file).read_text().strip()) if key_file else None,
            snapshot_entries=positive_int(env, "MESHYARD_SNAPSHOT_ENTRIES", 100_000),
            snapshot_seconds=positive_int(env, "MESHYARD_SNAPSHOT_SECONDS", 600),
            slot_grace_seconds=positive_int(env, "MESHYARD_SLOT_GRACE_SECONDS", 10),
            domain_of=domain_map(env, kafka.every_domain),
            policy_file=Path(policy_file) if policy_file else None,
            reconcile_seconds=positive_int(env, "MESHYARD_RECONCILE_SECONDS", 30),
            reconcile_after_seconds=positive_int(env, "MESHYARD_RECONCILE_AFTER_SECONDS", 60),
        )


def read_policy(file: Path | None) -> Policy:
    """The policy of a TOML file, the built-in one for None. Raises SettingsError, PolicyError."""
    if file is None:
        return DEFAULT
    try:
        text = file.read_text()
    except OSError as error:
        raise SettingsError("MESHYARD_POLICY_FILE", f"{error}; give a TOML file that can be read") from error
    return load_policy(text)
