"""`python -m analytics.local --data-dir DIR --port N`: the embedded ClickHouse server in the foreground.

Ready when it prints a line `ready clickhouse://USER@HOST:PORT`; SIGTERM and SIGINT stop it.
Exit codes: 0 stopped, 2 bad settings, 3 data directory in use, 4 port in use.
"""

import argparse
import os
import signal
import sys

import structlog

from analytics.local.errors import DataDirectoryLockedError
from analytics.local.lock import DirectoryLock
from analytics.settings import ServerSettings, SettingsError
from streams.logs import configure_logs

log = structlog.get_logger(__name__)

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def main(arguments: list[str] | None = None) -> int:
    """Runs the server until a signal comes."""
    configure_logs("clickhouse")
    parser = argparse.ArgumentParser(prog="python -m analytics.local", description="Embedded ClickHouse server")
    parser.add_argument("--data-dir", help="default: MESHYARD_CLICKHOUSE_DATA_DIR")
    parser.add_argument("--port", help="default: MESHYARD_CLICKHOUSE_PORT, else any free port")
    options = parser.parse_args(arguments)
    given = {"MESHYARD_CLICKHOUSE_DATA_DIR": options.data_dir, "MESHYARD_CLICKHOUSE_PORT": options.port}
    try:
        chosen = {name: value for name, value in given.items() if value}
        settings = ServerSettings.from_environ({**os.environ, **chosen})
        with DirectoryLock(settings.data_dir):
            return _serve(settings)
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except DataDirectoryLockedError as error:
        print(f"error: {error}", file=sys.stderr)
        return 3


def _serve(settings: ServerSettings) -> int:
    # Before any thread starts, so that all inherit it: a signal that reached one of the engine's threads would
    # wait for Python's main thread, which sleeps.
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    # After the lock: the engine is 600 MB of library, and a second server need not load it to be refused.
    from analytics.local.engine import Engine, EngineLimits
    from analytics.local.server import Server

    engine = Engine(settings.data_dir, EngineLimits(memory_bytes=settings.memory_bytes))
    server = Server(engine, settings)
    try:
        port = server.start()
    except OSError as error:
        print(f"error: {settings.host}:{settings.port}: {error.strerror}; choose another --port", file=sys.stderr)
        return 4
    log.info("clickhouse_ready", host=settings.host, port=port, data_dir=str(settings.data_dir), version=engine.version)
    print(f"ready clickhouse://{settings.user}@{settings.host}:{port}", flush=True)
    number = signal.sigwait(_STOP_SIGNALS)
    log.info("clickhouse_stopping", signal=signal.Signals(number).name)
    server.stop()
    engine.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
