"""`python -m streams admission|scheduler|all`: the streams roles. Configured by MESHYARD_* variables.

`python -m streams begin-anew` is for a domain whose queue cannot be rebuilt; see docs/operations.md.
"""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import structlog
import uvloop

from schemas.codec import Codec
from schemas.errors import RegistryError
from schemas.registry import registry_from_url
from streams.collector import spare_the_old
from streams.kafka.settings import SettingsError
from streams.logs import configure_logs
from streams.policy.config import PolicyError
from streams.settings import StreamsSettings, read_policy

if TYPE_CHECKING:
    from streams.agents.role import FaustRole
    from streams.agents.shell import SchedulerShell
    from streams.beside import Beside
    from streams.kafka.producer import AsyncProducer

ASK_SECONDS = 30.0
ASSIGNED_SECONDS = 30.0
log = structlog.get_logger("streams")


def main(argv: list[str] | None = None) -> int:
    """Runs until SIGTERM or SIGINT. Exit codes: 0 drained, 1 failed, 2 wrong settings."""
    parser = argparse.ArgumentParser(prog="python -m streams", description=__doc__)
    parser.add_argument("role", choices=("admission", "scheduler", "all", "begin-anew"))
    parser.add_argument("--shard", default="0/1", metavar="i/N", help="which shard of admission, from 0 (default 0/1)")
    parser.add_argument("--domain", metavar="D", help="scheduling domain (default: MESHYARD_DOMAIN, else main)")
    arguments = parser.parse_args(argv)
    configure_logs(arguments.role if arguments.role != "all" else "streams")
    try:
        shard, shards = _shard(arguments.shard)
        env = {**os.environ, **({"MESHYARD_DOMAIN": arguments.domain} if arguments.domain else {})}
        settings = StreamsSettings.from_env(env, shard=shard, shards=shards)
        codec = Codec(registry_from_url(settings.kafka.registry_url))
        if arguments.role != "admission":
            read_policy(settings.policy_file)
    except (SettingsError, RegistryError, PolicyError) as error:
        print(f"streams: {error}", file=sys.stderr)
        return 2
    if arguments.role == "begin-anew":
        return _begin_anew(settings)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(arguments.role, settings, codec))


def _begin_anew(settings: StreamsSettings) -> int:
    from streams.anew import SchedulerRuns, begin_anew
    from streams.clock import SystemClock
    from streams.objects import ObjectStore
    from streams.snapshots import SnapshotStore

    snapshots = SnapshotStore(ObjectStore(settings.objects_url), settings.kafka.domain)
    try:
        begin_anew(settings.kafka, snapshots, SystemClock())
    except SchedulerRuns as error:
        print(f"streams: {error}", file=sys.stderr)
        return 1
    return 0


def _shard(text: str) -> tuple[int, int]:
    left, _, right = text.partition("/")
    if not (left.isdigit() and right.isdigit() and int(left) < int(right)):
        raise SettingsError("--shard", f"{text!r} is no shard; give i/N with 0 <= i < N")
    return int(left), int(right)


async def _run(name: str, settings: StreamsSettings, codec: Codec) -> int:
    from streams.kafka.producer import AsyncProducer

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    threads: list[Beside] = []
    shell: SchedulerShell | None = None
    async with AsyncProducer(settings.kafka) as producer:
        roles: list[FaustRole] = []
        if name in ("scheduler", "all"):
            role, shell, threads = await _scheduler(settings, codec, producer)
            roles.append(role)
        if name in ("admission", "all"):
            from streams.agents.admission import admission_role

            roles.append(await admission_role(settings, codec, producer))
        started = asyncio.gather(*(role.start() for role in roles))
        guards = [asyncio.create_task(_watch_assignment(role)) for role in roles]
        waiting: list[asyncio.Future[Any]] = [asyncio.ensure_future(stop.wait()), *(role.failed for role in roles)]
        done, _ = await asyncio.wait([started, *waiting], return_when=asyncio.FIRST_COMPLETED)
        if done == {started} and started.exception() is None:
            for thread in threads:
                thread.start()
            spare_the_old()  # the recovered queue
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if any(future.exception() is not None for future in done):
            # Nothing of the broken batch is acknowledged: end at once, without a last commit, and let the next life
            # repeat it.
            log.error("streams_failed")
            os._exit(1)
        if not started.done():
            log.info("streams_stopped_while_starting")
            os._exit(0)
        for guard in guards:
            guard.cancel()
        for thread in threads:
            await asyncio.to_thread(thread.stop)
        await asyncio.gather(*(role.stop() for role in roles))
        if shell is not None:
            await shell.snapshot()  # another version of the policy can go on from here
    log.info("streams_stopped")
    return 0


async def _watch_assignment(role: "FaustRole") -> None:
    """Ends a role that gets no partitions. A static member that is back before its session has ended is handed the
    assignment of its last life; where that names topics of another release, Faust would wait for ever."""
    await asyncio.sleep(ASSIGNED_SECONDS)
    consumer = role.app.consumer
    if not consumer.assignment():
        role.fail(RuntimeError(f"no partitions were assigned within {ASSIGNED_SECONDS:.0f} s"))


async def _scheduler(
    settings: StreamsSettings, codec: Codec, producer: "AsyncProducer"
) -> "tuple[FaustRole, SchedulerShell, list[Beside]]":
    """The scheduler and the threads beside it, in the order in which they stop."""
    from streams.agents.scheduler import scheduler_role
    from streams.inbox import InboxWriter
    from streams.objects import ObjectStore
    from streams.reconciler import Reconciler, SchedulerView
    from streams.routing_relay import RoutingRelay
    from streams.slots import SlotMonitor
    from streams.snapshots import SnapshotStore

    loop = asyncio.get_running_loop()
    snapshots = SnapshotStore(ObjectStore(settings.objects_url), settings.kafka.domain)
    role, shell = await scheduler_role(settings, codec, producer, snapshots)
    inbox = InboxWriter(settings.kafka, codec, role.clock)

    def fail(error: BaseException) -> None:
        loop.call_soon_threadsafe(role.fail, error)

    def in_hand() -> Mapping[int, tuple[int, frozenset[str]]]:
        return asyncio.run_coroutine_threadsafe(shell.in_hand(), loop).result(ASK_SECONDS)

    view = SchedulerView(knows=shell.knows, folded=shell.folded, in_hand=in_hand)
    reconciler = Reconciler(settings, codec, inbox, view, lambda slot, epoch: monitor.fence(slot, epoch), fail)
    monitor = SlotMonitor(settings, codec, inbox, shell.live_slots, reconciler.hear, fail)
    relay = RoutingRelay(settings.kafka, codec, inbox, shell.revision_of, fail)
    return role, shell, [reconciler, monitor, relay]


if __name__ == "__main__":
    sys.exit(main())
