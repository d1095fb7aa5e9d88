"""`python -m gateway`: one gateway process, configured by MESHYARD_* variables."""

import asyncio
import gc
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
import uvicorn
import uvloop

from gateway.app import create_app
from gateway.logs import configure
from gateway.services import Services
from gateway.settings import GatewaySettings
from streams.kafka.settings import SettingsError

log = structlog.get_logger("gateway")

# What is still open this long after SIGTERM is cut off; event streams end by themselves at once.
_DRAIN_SECONDS = 10


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers, which end the process by the signal instead of with code 0."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(settings: GatewaySettings) -> int:
    """Serves until SIGTERM or SIGINT, or until the feed fails. Returns the exit code."""
    services = Services(settings)
    server = _Server(
        uvicorn.Config(
            create_app(services),
            host=settings.host,
            port=settings.port,
            http="httptools",
            lifespan="on",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=_DRAIN_SECONDS,
        )
    )

    def drain() -> None:
        services.hub.drain()
        server.should_exit = True

    services.on_fatal = drain
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, drain)
    log.info("gateway starts", host=settings.host, port=settings.port, gateway_id=settings.gateway_id)
    await server.serve()
    if not server.started:
        log.error("gateway could not listen", host=settings.host, port=settings.port)
        return 1
    log.info("gateway stopped", failed=services.failed is not None)
    return 1 if services.failed is not None else 0


def main() -> int:
    """The process's entry point; returns its exit code."""
    try:
        settings = GatewaySettings.from_env()
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    configure(settings.log_format, "gateway")
    # What was imported lives for ever: keep the collector from walking it on every full collection.
    gc.collect()
    gc.freeze()
    with asyncio.Runner(loop_factory=_new_loop) as runner:
        return runner.run(serve(settings))


def _new_loop() -> asyncio.AbstractEventLoop:
    return uvloop.new_event_loop()


if __name__ == "__main__":
    sys.exit(main())
