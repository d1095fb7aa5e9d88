"""`python -m streams admission|scheduler|all`: the streams roles. Configured by MESHYARD_* variables."""

import argparse
import asyncio
import os
import signal
import sys
from typing import Any

import structlog

from schemas.codec import Codec
from schemas.errors import RegistryError
from schemas.registry import registry_from_url
from streams.kafka.settings import SettingsError
from streams.logs import configure_logs
from streams.settings import StreamsSettings

log = structlog.get_logger("streams")


def main(argv: list[str] | None = None) -> int:
    """Runs until SIGTERM or SIGINT. Exit codes: 0 drained, 1 failed, 2 wrong settings."""
    parser = argparse.ArgumentParser(prog="python -m streams", description=__doc__)
    parser.add_argument("role", choices=("admission", "scheduler", "all"))
    parser.add_argument("--shard", default="0/1", metavar="i/N", help="which shard of admission, from 0 (default 0/1)")
    parser.add_argument("--domain", metavar="D", help="scheduling domain (default: MESHYARD_DOMAIN, else main)")
    arguments = parser.parse_args(argv)
    configure_logs(arguments.role if arguments.role != "all" else "streams")
    try:
        shard, shards = _shard(arguments.shard)
        env = {**os.environ, **({"MESHYARD_DOMAIN": arguments.domain} if arguments.domain else {})}
        settings = StreamsSettings.from_env(env, shard=shard, shards=shards)
        codec = Codec(registry_from_url(settings.kafka.registry_url))
    except (SettingsError, RegistryError) as error:
        print(f"streams: {error}", file=sys.stderr)
        return 2
    return asyncio.run(_run(arguments.role, settings, codec))


def _shard(text: str) -> tuple[int, int]:
    left, _, right = text.partition("/")
    if not (left.isdigit() and right.isdigit() and int(left) < int(right)):
        raise SettingsError("--shard", f"{text!r} is no shard; give i/N with 0 <= i < N")
    return int(left), int(right)


async def _run(name: str, settings: StreamsSettings, codec: Codec) -> int:
    from streams.agents.admission import admission_role
    from streams.agents.role import FaustRole
    from streams.agents.scheduler import scheduler_role
    from streams.kafka.producer import AsyncProducer
    from streams.objects import ObjectStore
    from streams.slots import SlotMonitor
    from streams.snapshots import SnapshotStore

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    monitor: SlotMonitor | None = None
    async with AsyncProducer(settings.kafka) as producer:
        roles: list[FaustRole] = []
        if name in ("scheduler", "all"):
            snapshots = SnapshotStore(ObjectStore(settings.objects_url), settings.kafka.domain)
            role, shell = await scheduler_role(settings, codec, producer, snapshots)
            roles.append(role)
            monitor = SlotMonitor(
                settings.kafka, codec, role.clock, lambda: shell.live_slots, settings.slot_grace_seconds
            )
        if name in ("admission", "all"):
            roles.append(await admission_role(settings, codec, producer))
        await asyncio.gather(*(role.start() for role in roles))
        if monitor is not None:
            monitor.start()
        waiting: list[asyncio.Future[Any]] = [asyncio.ensure_future(stop.wait()), *(role.failed for role in roles)]
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if any(future.exception() is not None for future in done):
            # Nothing of the broken batch is acknowledged: end at once, without a last commit, and let the next life
            # repeat it.
            log.error("streams_failed")
            os._exit(1)
        if monitor is not None:
            monitor.stop()
        await asyncio.gather(*(role.stop() for role in roles))
    log.info("streams_stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
