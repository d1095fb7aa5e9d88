"""`meshyard setup`: what an installation of one's own needs once; `meshyard up` does the same for the local stack."""

import argparse

from gateway.cli.target import add_data_dir, data_dir_of

HELP = "create topics, secrets and the user `local` of an installation (safe to repeat)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_data_dir(parser)


def run(arguments: argparse.Namespace) -> int:
    """Create what is missing on the brokers of MESHYARD_KAFKA_BOOTSTRAP and in DIR/secrets."""
    import sys

    from confluent_kafka import KafkaException

    from gateway.cli.errors import CommandError
    from gateway.supervisor.bootstrap import LOCAL_USER, prepare
    from gateway.supervisor.layout import Layout
    from streams.kafka.settings import KafkaSettings

    settings = KafkaSettings.from_env()
    layout = Layout(root=data_dir_of(arguments))
    try:
        layout.make()
        prepare(settings, layout)
    except OSError as error:
        raise CommandError(
            f"--data-dir: {layout.root}: {error.strerror}; give a directory that you may write to"
        ) from error
    except KafkaException as error:
        raise CommandError(f"the broker at {settings.bootstrap} refused: {error.args[0].str()}") from error
    sys.stdout.write(f"ready; the key of the user {LOCAL_USER} is in {layout.key_file}\n")
    return 0
