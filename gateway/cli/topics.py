"""`meshyard topics create|list`: the catalogue of topics and the broker's state of it."""

import argparse

from gateway.cli.errors import CommandError
from gateway.cli.target import add_data_dir, data_dir_of

HELP = "create or list the catalogue's topics"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("action", choices=("create", "list"), help="create what is missing, or show what there is")
    add_data_dir(parser)


def run(arguments: argparse.Namespace) -> int:
    """Create or list."""
    import os

    from confluent_kafka import KafkaException
    from rich.console import Console
    from rich.table import Table

    from gateway.supervisor.state import running
    from schemas.topics import catalogue
    from streams.kafka.admin import create_topics, list_topics, partitions_of
    from streams.kafka.settings import KafkaSettings

    env = dict(os.environ)
    if not env.get("MESHYARD_KAFKA_BOOTSTRAP"):
        stack = running(data_dir_of(arguments))
        if stack is None or stack.kafka is None:
            raise CommandError("no broker known: start a stack with `meshyard up` or set MESHYARD_KAFKA_BOOTSTRAP")
        env["MESHYARD_KAFKA_BOOTSTRAP"] = stack.kafka
    settings = KafkaSettings.from_env(env)
    if not any(_is_open(server) for server in settings.bootstrap.split(",")):
        raise CommandError(f"no broker answers at {settings.bootstrap}; check MESHYARD_KAFKA_BOOTSTRAP")
    topics = catalogue(domains=settings.every_domain)
    console = Console(soft_wrap=True)
    try:
        if arguments.action == "create":
            created = create_topics(settings, topics)
            console.print(f"{len(created)} created, {len(topics) - len(created)} were there")
            return 0
        table = Table("topic", "partitions", "key", "record", "kept", "what for")
        for found in list_topics(settings, topics):
            topic = found.topic
            kept = "newest of each key" if topic.compacted else f"{topic.retention_ms / 3_600_000:.0f} h"
            here = str(found.partitions) if found.partitions else f"absent ({partitions_of(topic, settings)})"
            table.add_row(topic.name, here, topic.key, topic.record or "-", kept, topic.doc)
        console.print(table)
    except KafkaException as error:
        raise CommandError(f"the broker at {settings.bootstrap} refused: {error.args[0].str()}") from error
    return 0


def _is_open(server: str) -> bool:
    """Whether somebody listens there. Asked first, because librdkafka tells each failed try on the screen."""
    import socket

    host, _, port = server.strip().rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), 5.0).close()
    except (OSError, ValueError):
        return False
    return True
