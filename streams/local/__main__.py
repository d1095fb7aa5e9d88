"""Run the local broker in the foreground: `python -m streams.local --data-dir DIR [--port N]`."""

import argparse
import signal
import sys
import time
from pathlib import Path

from streams.local.broker import Broker
from streams.local.errors import LocalBrokerError
from streams.local.settings import LocalBrokerSettings


def main() -> int:
    """Run a node until SIGINT or SIGTERM; prints one line when it answers. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m streams.local", description="Run a local Apache Kafka node.")
    parser.add_argument("--data-dir", type=Path, required=True, help="where its data are kept")
    parser.add_argument("--port", type=int, help="the clients' port (default: the one used before, or a free one)")
    arguments = parser.parse_args()

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGTERM ends like Ctrl-C
    broker = Broker(LocalBrokerSettings.from_env(arguments.data_dir, arguments.port))
    try:
        from rich.console import Console

        broker.start(with_parent=True, console=Console(stderr=True) if sys.stderr.isatty() else None)
        broker.wait_ready()
        sys.stdout.write(f"Kafka answers at {broker.bootstrap}\n")
        sys.stdout.flush()
        while broker.poll() is None:
            time.sleep(0.5)
        sys.stderr.write(f"the broker ended with code {broker.poll()}; its log is {broker.log_file}\n")
        return 1
    except KeyboardInterrupt:
        return 0
    except LocalBrokerError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    finally:
        broker.stop()


if __name__ == "__main__":
    sys.exit(main())
