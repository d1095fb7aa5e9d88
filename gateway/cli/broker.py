"""Commands that speak with Kafka themselves: which broker, and how their changes are written."""

import argparse
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from gateway.cli.errors import CommandError, UsageError
from gateway.cli.target import add_data_dir, data_dir_of

if TYPE_CHECKING:
    from streams.kafka.producer import Outgoing
    from streams.kafka.settings import KafkaSettings

PATIENCE_SECONDS: Final = 30.0
LONGEST_REASON: Final = 500


def add_operator(parser: argparse.ArgumentParser) -> None:
    """`--by` and `--reason` of a change."""
    parser.add_argument("--by", default=operator(), metavar="NAME", help="who changes it (default: your login)")
    parser.add_argument("--reason", default="", type=reason, metavar="TEXT", help="why, for those who look later")


def add_broker(parser: argparse.ArgumentParser) -> None:
    """`--data-dir`; an installation that is no local stack is named by MESHYARD_KAFKA_BOOTSTRAP."""
    add_data_dir(parser)


def operator() -> str:
    """The login of the one who gives the command."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in containers
        return "operator"


def reason(text: str) -> str:
    """A reason. Raises ArgumentTypeError."""
    if len(text) > LONGEST_REASON:
        raise argparse.ArgumentTypeError(f"has {len(text)} characters; {LONGEST_REASON} are the most")
    return text


def kafka_settings(arguments: argparse.Namespace, env: Mapping[str, str] = os.environ) -> "KafkaSettings":
    """How to reach Kafka: by the environment, else that of the local stack. Raises CommandError, SettingsError."""
    from gateway.supervisor.state import running
    from streams.kafka.settings import KafkaSettings

    found = dict(env)
    if not found.get("MESHYARD_KAFKA_BOOTSTRAP"):
        stack = running(data_dir_of(arguments))
        if stack is None or stack.kafka is None:
            raise CommandError("no broker known: start a stack with `meshyard up` or set MESHYARD_KAFKA_BOOTSTRAP")
        found["MESHYARD_KAFKA_BOOTSTRAP"] = stack.kafka
    settings = KafkaSettings.from_env(found)
    if not any(_is_open(server) for server in settings.bootstrap.split(",")):
        raise CommandError(f"no broker answers at {settings.bootstrap}; check MESHYARD_KAFKA_BOOTSTRAP")
    return settings


def server_key(arguments: argparse.Namespace, env: Mapping[str, str] = os.environ) -> bytes | None:
    """The installation's key, with which requests are signed; None when only trusted topics can be written to.
    Raises UsageError when the file that is named holds none."""
    from pathlib import Path

    from gateway.supervisor.layout import Layout

    named = env.get("MESHYARD_SERVER_KEY_FILE")
    file = Path(named) if named else Layout(root=data_dir_of(arguments)).server_key_file
    try:
        return bytes.fromhex(file.read_text().strip())
    except (OSError, ValueError) as error:
        if named:
            raise UsageError("MESHYARD_SERVER_KEY_FILE", f"{file}: {error}; name the gateways' key file") from error
        return None


@contextmanager
def broker_errors(settings: "KafkaSettings") -> Iterator[None]:
    """Turns what Kafka refuses into one line."""
    from confluent_kafka import KafkaError, KafkaException

    try:
        yield
    except KafkaException as error:
        fault = error.args[0]
        if fault.code() in (KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH):
            raise CommandError("somebody else changed this at the same time; look again, then repeat it") from error
        raise CommandError(f"the broker at {settings.bootstrap} refused: {fault.str()}") from error


class ExclusiveWriter:
    """Writes changes that others make too, one at a time: each batch of records is one transaction, and whoever begins
    later fences who began before. So what is read between the two belongs to what is written."""

    def __init__(self, settings: "KafkaSettings", name: str) -> None:
        from confluent_kafka import Producer

        from streams.kafka.producer import transactional_config

        self._settings = settings
        self._producer = Producer(transactional_config(settings, f"meshyard-operator-{name}"))
        self._producer.init_transactions(PATIENCE_SECONDS)

    def write(self, records: Iterable["Outgoing"]) -> None:
        """All of them, or none; who reads after this reads them. Raises KafkaException."""
        from confluent_kafka import KafkaError, KafkaException, Message

        ends: dict[tuple[str, int], int] = {}

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is None:
                ends[message.topic() or "", message.partition() or 0] = (message.offset() or 0) + 1

        self._producer.begin_transaction()
        try:
            for record in records:
                self._producer.produce(
                    record.topic,
                    key=record.key,
                    value=record.value,
                    partition=record.partition,
                    headers=record.headers,
                    on_delivery=delivered,
                )
                self._producer.poll(0)
            self._producer.commit_transaction(PATIENCE_SECONDS)
        except KafkaException as error:
            if error.args[0].txn_requires_abort():
                self._producer.abort_transaction(PATIENCE_SECONDS)
            raise
        self._wait_until_visible(ends)

    def _wait_until_visible(self, ends: "Mapping[tuple[str, int], int]") -> None:
        """A commit is acknowledged before its markers stand in the partitions. Who is slower than our patience is read
        later; it is committed all the same."""
        from streams.kafka.consumer import end_offset

        deadline = time.monotonic() + PATIENCE_SECONDS
        for (topic, partition), end in ends.items():
            while end_offset(self._settings, topic, partition) < end and time.monotonic() < deadline:
                time.sleep(0.01)


def _is_open(server: str) -> bool:
    """Whether somebody listens there. Asked first, because librdkafka tells each failed try on the screen."""
    import socket

    host, _, port = server.strip().rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), 5.0).close()
    except (OSError, ValueError):
        return False
    return True
