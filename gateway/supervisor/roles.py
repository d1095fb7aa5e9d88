"""The roles of the local stack: their commands, environments and probes."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from gateway.supervisor.layout import CLICKHOUSE_USER, Layout, Ports, StackSettings
from gateway.supervisor.probes import clickhouse_answers, gateway_says
from gateway.supervisor.role import CommandRole
from streams.local.broker import STOP_SECONDS, Broker
from streams.local.ports import LOOPBACK
from streams.local.readiness import answers_api_versions

if TYPE_CHECKING:
    from gateway.supervisor.watch import Signals

SYNTHETIC: Final = "synthetic"
ASSEMBLY: Final = "assembly"
DRAIN_SECONDS: Final = 20
"""How long a worker may go on with what it has begun when the stack stops."""


class BrokerRole:
    """The embedded Kafka."""

    name = "broker"
    stop_seconds = STOP_SECONDS

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.log_file: Path = broker.log_file
        self.port: int | None = None
        self.endpoint: str | None = None

    def launch(self) -> "subprocess.Popen[bytes]":
        """Start the node, at the port it had before."""
        self.broker.start(with_parent=True)
        self.port, self.endpoint = self.broker.port, self.broker.bootstrap
        return self.broker.process

    def is_ready(self) -> bool:
        """Whether it answers requests."""
        return answers_api_versions(LOOPBACK, self.broker.port)

    def ended(self) -> None:
        """Keep what the node left for the next start."""
        self.broker.stop()


def clickhouse_url(layout: Layout, ports: Ports) -> str:
    """The address of ClickHouse with its password."""
    password = quote(layout.clickhouse_password_file.read_text().strip(), safe="")
    return f"clickhouse://{CLICKHOUSE_USER}:{password}@{LOOPBACK}:{ports.clickhouse}/default"


def clickhouse_role(layout: Layout, ports: Ports) -> CommandRole:
    """The embedded ClickHouse. It needs nothing of the others."""
    environment = _environment(
        {
            "MESHYARD_CLICKHOUSE_DATA_DIR": str(layout.role_dir("clickhouse")),
            "MESHYARD_CLICKHOUSE_PORT": str(ports.clickhouse),
            "MESHYARD_CLICKHOUSE_USER": CLICKHOUSE_USER,
            "MESHYARD_CLICKHOUSE_PASSWORD": layout.clickhouse_password_file.read_text().strip(),
        }
    )
    password = environment["MESHYARD_CLICKHOUSE_PASSWORD"]
    return CommandRole(
        name="clickhouse",
        arguments=_python("analytics.local"),
        environment=environment,
        log_file=layout.log_file("clickhouse"),
        port=ports.clickhouse,
        endpoint=f"{LOOPBACK}:{ports.clickhouse}",
        ready=lambda: clickhouse_answers(ports.clickhouse, CLICKHOUSE_USER, password),
        stop_seconds=15.0,
    )


def application_roles(
    settings: StackSettings, layout: Layout, ports: Ports, bootstrap: str, signals: "Signals"
) -> list[CommandRole]:
    """Streams, gateway, sink and workers, in the order in which they start; they need Kafka and its topics."""
    shared = {
        "MESHYARD_KAFKA_BOOTSTRAP": bootstrap,
        "MESHYARD_USER_PARTITIONS": str(settings.user_partitions),
        "MESHYARD_OBJECTS_URL": layout.objects_url,
        "MESHYARD_SERVER_KEY_FILE": str(layout.server_key_file),
        **({"MESHYARD_POLICY_FILE": str(settings.policy_file)} if settings.policy_file else {}),
    }

    def role(
        name: str,
        arguments: list[str],
        own: Mapping[str, str],
        ready: Callable[[], bool] | None,
        stop_seconds: float = 10.0,
    ) -> CommandRole:
        folder = layout.role_dir(name)
        folder.mkdir(exist_ok=True)
        return CommandRole(
            name=name,
            arguments=arguments,
            environment=_environment({**shared, "MESHYARD_DATA_DIR": str(folder), **own}),
            log_file=layout.log_file(name),
            ready=ready,
            stop_seconds=stop_seconds,
        )

    first, *others = settings.domains
    streams = role(
        "streams",
        _python("streams", "all"),
        {"MESHYARD_TRUST_TOPIC": "1", "MESHYARD_DOMAIN": first},
        lambda: signals.scheduler_ready(first),
    )
    schedulers = [
        role(
            f"streams-{domain}",
            _python("streams", "scheduler", "--domain", domain),
            {"MESHYARD_TRUST_TOPIC": "1"},
            lambda domain=domain: signals.scheduler_ready(domain),  # type: ignore[misc]
        )
        for domain in others
    ]
    gateway = role(
        "gateway",
        _python("gateway"),
        {"MESHYARD_GATEWAY_HOST": LOOPBACK, "MESHYARD_GATEWAY_PORT": str(ports.gateway)},
        lambda: gateway_says(ports.gateway, "/healthz")[0] == 200,
    )
    gateway.port, gateway.endpoint = ports.gateway, f"http://{LOOPBACK}:{ports.gateway}"
    sink = role("sink", _python("analytics"), {"MESHYARD_CLICKHOUSE_URL": clickhouse_url(layout, ports)}, None, 15.0)
    workers = []
    for slot in range(settings.slots + settings.synthetic_slots):
        synthetic = slot >= settings.slots
        arguments = _python("inference", "--pool", "synthetic" if synthetic else "default", "--slot", str(slot))
        domain = settings.domain_for(SYNTHETIC if synthetic else ASSEMBLY)
        workers.append(
            role(
                f"worker-{slot}",
                [*arguments, "--synthetic", "--capacity", str(settings.capacity)] if synthetic else arguments,
                {"MESHYARD_DRAIN_SECONDS": str(DRAIN_SECONDS), "MESHYARD_DOMAIN": domain},
                lambda slot=slot: signals.slot_ready(slot),  # type: ignore[misc]
                DRAIN_SECONDS + 10.0,
            )
        )
    return [streams, *schedulers, gateway, *workers, sink]


def _python(module: str, *arguments: str) -> list[str]:
    """-P: a folder named like one of our packages in the user's directory must not be imported."""
    return [sys.executable, "-P", "-m", module, *arguments]


def _environment(own: Mapping[str, str]) -> dict[str, str]:
    """The supervisor's environment with a role's own settings over it."""
    return {**os.environ, "PYTHONUNBUFFERED": "1", **own}
