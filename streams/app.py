"""Makes Faust apps that are safe: at_least_once, one process per app id, read_committed, nothing declared by itself."""

from typing import Any

import faust
from faust.assignor.partition_assignor import PartitionAssignor

from streams.agents.transport import ExactTransport
from streams.settings import StreamsSettings


def make_app(
    settings: StreamsSettings, app_id: str, partitions: int, assignor: type[PartitionAssignor] | None = None
) -> faust.App:
    """An app that the caller starts with `await app.start()`. Its id is its consumer group; a second process with the
    same id must not run (static membership makes Kafka refuse it)."""
    first = settings.kafka.bootstrap.split(",")
    options: dict[str, Any] = {"PartitionAssignor": assignor} if assignor is not None else {}
    credentials = _credentials(settings)
    if credentials is not None:
        options["broker_credentials"] = credentials
    datadir = settings.data_dir / app_id
    datadir.parent.mkdir(parents=True, exist_ok=True)
    app = faust.App(
        app_id,
        broker=";".join(f"kafka://{address}" for address in first),
        processing_guarantee="at_least_once",
        store="memory://",
        datadir=str(datadir),
        topic_partitions=partitions,
        topic_disable_leader=True,
        topic_allow_declare=False,
        table_standby_replicas=0,
        consumer_auto_offset_reset="earliest",
        consumer_group_instance_id=f"{app_id}-0",
        broker_session_timeout=10.0,
        broker_heartbeat_interval=3.0,
        broker_commit_interval=1.0,
        producer_acks=-1,
        producer_linger=0.002,
        stream_wait_empty=True,
        stream_recovery_delay=0.0,
        stream_buffer_maxsize=16_384,
        web_enabled=False,
        **options,
    )
    app.transport = ExactTransport(list(app.conf.broker_consumer), app)
    return app


def raw_topic(app: faust.App, name: str, partitions: int | None = None) -> Any:
    """A topic whose keys and values stay bytes."""
    return app.topic(
        name,
        key_type=bytes,
        value_type=bytes,
        key_serializer="raw",
        value_serializer="raw",
        partitions=partitions,
        allow_empty=True,
    )


def _credentials(settings: StreamsSettings) -> Any:
    kafka = settings.kafka
    if kafka.security_protocol == "PLAINTEXT":
        return None
    import ssl

    context = ssl.create_default_context(cafile=kafka.ca_file) if "SSL" in kafka.security_protocol else None
    if kafka.sasl_mechanism is None:
        return faust.SSLCredentials(context)
    return faust.SASLCredentials(
        username=kafka.sasl_username,
        password=kafka.sasl_password,
        mechanism=kafka.sasl_mechanism,
        ssl_context=context,
    )
