"""`meshyard load`: how the scheduling domains stand, what each lane has to expect, and what the load level does."""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from gateway.cli.broker import add_broker, broker_errors, kafka_settings
from gateway.cli.errors import CommandError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from streams.kafka.settings import KafkaSettings

HELP = "show load, waits and the load level"
STALE_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 0.5
_FIRST_LOOK: Final = 50  # records of the topic's end; a domain writes one a second


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--domain", metavar="NAME", help="only this domain")
    parser.add_argument("--watch", action="store_true", help="go on, as new reports come")
    parser.add_argument("--json", action="store_true", help="print JSON, one line a report")
    add_broker(parser)


def run(arguments: argparse.Namespace) -> int:
    """Show it once, or with `--watch` until it is interrupted."""
    settings = kafka_settings(arguments)
    with broker_errors(settings):
        newest = newest_loads(settings)
        if arguments.domain is not None:
            newest = {name: load for name, load in newest.items() if name == arguments.domain}
        if not newest and not arguments.watch:
            named = f"of domain {arguments.domain} " if arguments.domain else ""
            raise CommandError(f"no load report {named}yet; is the scheduler running? (`meshyard status`)")
        if arguments.watch:
            _watch(settings, newest, arguments)
        elif arguments.json:
            _print_lines(newest.values())
        else:
            from rich.console import Console

            Console(soft_wrap=True).print(picture(newest, int(time.time() * 1000)))
    return 0


def newest_loads(settings: "KafkaSettings") -> dict[str, dict[str, Any]]:
    """Each domain's newest DomainLoad, from the end of its topic."""
    from schemas.codec import Codec
    from schemas.registry import registry_from_url
    from schemas.topics import LOAD
    from streams.kafka.consumer import end_offset, first_offset, read_range

    codec = Codec(registry_from_url(settings.registry_url))
    first, end, look = first_offset(settings, LOAD, 0), end_offset(settings, LOAD, 0), _FIRST_LOOK
    while True:
        start = max(first, end - look)
        found = {}
        for message in read_range(settings, LOAD, 0, start=start, end=end):
            record = codec.decode(_bytes(message.value()), "domain_load")
            found[record["domain"]] = record
        if found or start <= first:
            return found
        look *= 10  # compaction left gaps


def _bytes(value: str | bytes | None) -> bytes | None:
    return value if isinstance(value, bytes) else None


def _follow(settings: "KafkaSettings") -> Iterator[dict[str, Any] | None]:
    """New reports as they come; None while none comes."""
    from confluent_kafka import OFFSET_END, Consumer, KafkaException, TopicPartition

    from schemas.codec import Codec
    from schemas.registry import registry_from_url
    from schemas.topics import LOAD
    from streams.kafka.consumer import consumer_config

    codec = Codec(registry_from_url(settings.registry_url))
    consumer = Consumer(consumer_config(settings, "meshyard-cli"))
    consumer.assign([TopicPartition(LOAD, 0, OFFSET_END)])
    try:
        while True:
            message = consumer.poll(_POLL_SECONDS)
            if message is None:
                yield None
            elif (error := message.error()) is not None:
                raise KafkaException(error)
            else:
                yield codec.decode(_bytes(message.value()), "domain_load")
    finally:
        consumer.close()


def _watch(settings: "KafkaSettings", newest: dict[str, dict[str, Any]], arguments: argparse.Namespace) -> None:
    from rich.live import Live

    if arguments.json:
        _print_lines(newest.values())
        for load in _follow(settings):
            if load is not None and arguments.domain in (None, load["domain"]):
                _print_lines([load])
        return
    with Live(picture(newest, int(time.time() * 1000)), auto_refresh=False) as live:
        for load in _follow(settings):
            if load is not None and arguments.domain in (None, load["domain"]):
                newest[load["domain"]] = load
            live.update(picture(newest, int(time.time() * 1000)), refresh=True)


def _print_lines(loads: Any) -> None:
    for load in loads:
        sys.stdout.write(json.dumps(load) + "\n")
    sys.stdout.flush()


def picture(loads: dict[str, dict[str, Any]], now_ms: int) -> "RenderableType":
    """The domains one below the other."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = []
    for name in sorted(loads):
        parts += [Text(line) for line in headlines(loads[name], now_ms)]
        parts.append(_table(loads[name]))
    return Group(*parts) if parts else Text("no load report yet")


def headlines(load: dict[str, Any], now_ms: int) -> list[str]:
    """A domain in a few lines."""
    from gateway.load import effects

    age_seconds = (now_ms - load["at"]) / 1000
    late = f", {age_seconds:.0f} s old: the scheduler is silent" if age_seconds > STALE_SECONDS else ""
    since = f" for {(now_ms - load['level_since']) / 1000:.0f} s" if load["level"] and load["level_since"] else ""
    lines = [
        f"{load['domain']}: load level {load['level']}{since}{late}",
        f"  {load['live_slots']} slots for {load['capacity']} tasks, {load['running_tasks']} run, "
        f"{load['queued_tasks']} wait ({load['queued_gpu_seconds']:.1f} GPU-seconds)",
        f"  predicted wait {load['predicted_wait_seconds']:.1f} s, oldest {load['oldest_age_seconds']:.1f} s",
    ]
    lines += [f"  {effect}" for effect in effects(load)]
    if load["refused_tiers"] or load["refused_lanes"]:
        lines.append(f"  they may ask again in {load['retry_after_seconds']:.0f} s")
    return lines


def _table(load: dict[str, Any]) -> "RenderableType":
    from rich.table import Table

    from schemas.eta import predict

    # Eighty columns must do: no lines between cells, and two times in one.
    table = Table(
        "lane", "share", "wait", "run", "GPU-s", "oldest", "rate", "start p50/p90", "end p50/p90",
        box=None, padding=(0, 2, 0, 0), pad_edge=False,
    )  # fmt: skip
    for column in table.columns[1:]:
        column.justify = "right"
    total = sum(lane["weight"] for lane in load["lanes"]) or 1.0
    for lane in load["lanes"]:
        expected = predict(load, lane["lane"], lane["virtual_time"])  # of a user with nothing waiting
        start = end = "-"
        if expected is not None:
            start = f"{duration(expected.p50)}/{duration(expected.p90)}"
            end = f"{duration(expected.total_p50)}/{duration(expected.total_p90)}"
        table.add_row(
            lane["lane"],
            f"{100 * lane['weight'] / total:.0f}%",
            str(lane["queued_tasks"]),
            str(lane["running_tasks"]),
            f"{lane['queued_gpu_seconds']:.1f}",
            duration(lane["oldest_age_seconds"]),
            f"{lane['gpu_seconds_per_second']:.2f}",
            start,
            end,
        )
    return table


def duration(seconds: float) -> str:
    """A time for a table: `0.4s`, `3m`, `2.1h`."""
    if seconds < 100:
        return f"{seconds:.1f}s"
    return f"{seconds / 60:.0f}m" if seconds < 6000 else f"{seconds / 3600:.1f}h"
