"""`meshyard shards resize N --from M`: another number of admission shards."""

import argparse
import sys
import time

from gateway.cli.broker import ExclusiveWriter, add_broker, add_operator, broker_errors, kafka_settings
from gateway.cli.errors import CommandError, UsageError

HELP = "change the number of admission shards"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=type(parser))
    resize = actions.add_parser(
        "resize",
        help="move what is committed to another number of shards",
        description="Stop all admission shards, run this, then start the new ones as --shard 0/N to N-1/N.",
    )
    resize.add_argument("new", type=int, metavar="N", help="how many there shall be")
    resize.add_argument("--from", dest="old", type=int, required=True, metavar="M", help="how many there are")
    add_operator(resize)
    add_broker(resize)


def run(arguments: argparse.Namespace) -> int:
    """Move the offsets and tell it."""
    old, new = arguments.old, arguments.new
    for name, count in (("--from", old), ("N", new)):
        if count < 1:
            raise UsageError(name, f"{count} is no number of shards; give 1 or more")
    if old == new:
        raise UsageError("N", f"there are {old} shards already; give another number")
    settings = kafka_settings(arguments)
    for name, count in (("--from", old), ("N", new)):
        if count > settings.user_partitions:
            most = settings.user_partitions
            raise UsageError(
                name, f"{count} is more than the {most} partitions that shards divide; give {most} or less"
            )
    from schemas.codec import Codec
    from schemas.registry import registry_from_url
    from streams.agents.admission_shards import ShardsAlive, ShardsNeverRan, resize, resize_event

    with broker_errors(settings):
        writer = ExclusiveWriter(settings, "shards")
        try:
            moved = resize(settings, old, new)
        except (ShardsAlive, ShardsNeverRan) as error:
            raise CommandError(str(error)) from error
        codec, at = Codec(registry_from_url(settings.registry_url)), int(time.time() * 1000)
        writer.write([resize_event(codec, old, new, by=arguments.by, reason=arguments.reason, at=at)])
    sys.stdout.write(f"{len(moved)} offsets moved from {old} to {new} shards; start them as --shard 0/{new} ...\n")
    return 0
