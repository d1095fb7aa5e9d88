"""How to reach Kafka. One frozen record, read from the environment once; every client's configuration comes from it."""

import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from schemas.pipelines import PIPELINES

# A domain is part of topics' names and of transactional ids.
_DOMAIN_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,40}")


class SettingsError(ValueError):
    """An environment variable is missing or wrong; the message names it and the remedy."""

    def __init__(self, variable: str, remedy: str) -> None:
        self.variable = variable
        super().__init__(f"{variable}: {remedy}")


@dataclass(frozen=True, kw_only=True)
class KafkaSettings:
    """Connection to the brokers.

    bootstrap: host:port, comma-separated; security_protocol: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL;
    sasl_password is read from a file and never shown; user_partitions: P of the topic catalogue;
    domain: the scheduling domain of this role; domains: all of the installation, empty for this one alone;
    registry_url: a Confluent-compatible schema registry, None for the bundled ids.
    """

    bootstrap: str
    security_protocol: str = "PLAINTEXT"
    sasl_mechanism: str | None = None
    sasl_username: str | None = None
    sasl_password: str | None = field(default=None, repr=False)
    ca_file: str | None = None
    user_partitions: int = 4
    replication: int = 1
    domain: str = "main"
    domains: tuple[str, ...] = ()
    registry_url: str | None = None

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> "KafkaSettings":
        """Reads MESHYARD_KAFKA_*, MESHYARD_DOMAIN and MESHYARD_DOMAINS. Raises SettingsError."""
        bootstrap = env.get("MESHYARD_KAFKA_BOOTSTRAP")
        if not bootstrap:
            raise SettingsError("MESHYARD_KAFKA_BOOTSTRAP", "not set; give host:port of a broker")
        password_file = env.get("MESHYARD_KAFKA_PASSWORD_FILE")
        domain, domains = domains_from(env)
        return cls(
            bootstrap=bootstrap,
            security_protocol=env.get("MESHYARD_KAFKA_SECURITY_PROTOCOL", "PLAINTEXT"),
            sasl_mechanism=env.get("MESHYARD_KAFKA_SASL_MECHANISM"),
            sasl_username=env.get("MESHYARD_KAFKA_USERNAME"),
            sasl_password=Path(password_file).read_text().strip() if password_file else None,
            ca_file=env.get("MESHYARD_KAFKA_CA_FILE"),
            user_partitions=positive_int(env, "MESHYARD_USER_PARTITIONS", 4),
            replication=positive_int(env, "MESHYARD_KAFKA_REPLICATION", 1),
            domain=domain,
            domains=domains,
            registry_url=env.get("MESHYARD_SCHEMA_REGISTRY_URL") or None,
        )

    @property
    def every_domain(self) -> tuple[str, ...]:
        """The installation's domains, whose topics must exist; the first takes what no rule gives to another."""
        return self.domains or (self.domain,)

    def client(self) -> dict[str, Any]:
        """librdkafka settings that every client shares."""
        conf: dict[str, Any] = {
            "bootstrap.servers": self.bootstrap,
            "security.protocol": self.security_protocol,
            "log_level": 3,
            # Into our structured lines, when the client is polled; else they go to stderr as they are.
            "logger": logging.getLogger("librdkafka"),
            # Telemetry pushes to the broker; ours goes to ClickHouse.
            "enable.metrics.push": False,
            "reconnect.backoff.max.ms": 1000,
        }
        optional = {
            "sasl.mechanism": self.sasl_mechanism,
            "sasl.username": self.sasl_username,
            "sasl.password": self.sasl_password,
            "ssl.ca.location": self.ca_file,
        }
        conf.update({k: v for k, v in optional.items() if v is not None})
        return conf


def domains_from(env: Mapping[str, str]) -> tuple[str, tuple[str, ...]]:
    """This role's domain, and all that are named. Raises SettingsError."""
    named = tuple(part.strip() for part in env.get("MESHYARD_DOMAINS", "").split(",") if part.strip())
    domain = env.get("MESHYARD_DOMAIN") or (named[0] if named else "main")
    for name in (domain, *named):
        if not _DOMAIN_NAME.fullmatch(name):
            raise SettingsError("MESHYARD_DOMAINS", f"{name!r} is no domain's name; use a-z, 0-9, '_' and '-'")
    if named and domain not in named:
        raise SettingsError("MESHYARD_DOMAINS", f"{', '.join(named)} lacks {domain!r}, the domain of this role; add it")
    return domain, named


def domain_map(env: Mapping[str, str], domains: Sequence[str]) -> dict[str, str]:
    """MESHYARD_DOMAIN_OF, `pipeline=domain` comma-separated. Raises SettingsError."""
    found: dict[str, str] = {}
    for part in filter(None, (text.strip() for text in env.get("MESHYARD_DOMAIN_OF", "").split(","))):
        pipeline_id, equals, domain = (text.strip() for text in part.partition("="))
        if not equals or pipeline_id not in PIPELINES:
            known = ", ".join(sorted(PIPELINES))
            raise SettingsError("MESHYARD_DOMAIN_OF", f"{part!r}; give pipeline=domain, known pipelines are {known}")
        if domain not in domains:
            offered = ", ".join(domains)
            raise SettingsError("MESHYARD_DOMAIN_OF", f"{domain!r} is not one of MESHYARD_DOMAINS ({offered}); add it")
        found[pipeline_id] = domain
    return found


def positive_int(env: Mapping[str, str], name: str, default: int) -> int:
    """An integer of at least 1 from the environment. Raises SettingsError."""
    text = env.get(name)
    if text is None or text == "":
        return default
    try:
        value = int(text)
    except ValueError:
        raise SettingsError(name, f"{text!r} is no integer; give a whole number of at least 1") from None
    if value < 1:
        raise SettingsError(name, f"{value} is too small; give a whole number of at least 1")
    return value
