"""The configuration files of the one-node broker."""

from dataclasses import dataclass
from pathlib import Path

NODE_ID = 1
INTERNAL_PARTITIONS = 4

LOG4J = """\
<?xml version="1.0" encoding="UTF-8"?>
<Configuration status="ERROR" shutdownHook="disable">
  <Appenders>
    <Console name="log"><PatternLayout pattern="%d{ISO8601} %p %c{1} %m%n"/></Console>
  </Appenders>
  <Loggers>
    <Logger name="kafka.server.KafkaRaftServer" level="INFO"/>
    <Logger name="kafka.server.BrokerServer" level="INFO"/>
    <Root level="WARN"><AppenderRef ref="log"/></Root>
  </Loggers>
</Configuration>
"""


@dataclass(frozen=True, kw_only=True)
class Listeners:
    """The loopback ports of a node."""

    port: int
    """Clients."""

    controller_port: int
    """The node's own controller."""


def server_properties(listeners: Listeners, log_dir: Path) -> str:
    """`server.properties` of a node that is broker and controller at once and listens on loopback only."""
    host = "127.0.0.1"
    values: dict[str, object] = {
        "process.roles": "broker,controller",
        "node.id": NODE_ID,
        "controller.quorum.voters": f"{NODE_ID}@{host}:{listeners.controller_port}",
        "listeners": f"PLAINTEXT://{host}:{listeners.port},CONTROLLER://{host}:{listeners.controller_port}",
        "advertised.listeners": f"PLAINTEXT://{host}:{listeners.port}",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": log_dir,
        # Topics come from the catalogue only; a typing error must not make one.
        "auto.create.topics.enable": "false",
        "default.replication.factor": 1,
        "offsets.topic.num.partitions": INTERNAL_PARTITIONS,
        "offsets.topic.replication.factor": 1,
        "transaction.state.log.num.partitions": INTERNAL_PARTITIONS,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "share.coordinator.state.topic.num.partitions": INTERNAL_PARTITIONS,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        # A longer transaction would hold up every read_committed reader of its partitions.
        "transaction.max.timeout.ms": 60_000,
        "group.initial.rebalance.delay.ms": 0,
        # After kill -9 the controller refuses the new broker until the session of the old one has ended:
        # with the default of 9 s a restart takes 12 s.
        "broker.session.timeout.ms": 3_000,
        "broker.heartbeat.interval.ms": 500,
        # A small machine: the cleaner alone would take 128 MB of the heap.
        "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
        "num.network.threads": 2,
        "num.io.threads": 4,
    }
    return "".join(f"{key}={value}\n" for key, value in values.items())
