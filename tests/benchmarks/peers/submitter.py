"""The submitter of a peer: `python -m tests.benchmarks.peers.submitter celery|dramatiq`.

A line of JSON in is a phase: name, jobs, rate_per_second (null: as fast as it can). The line out says when each job
should have been sent (monotonic ns) and how long all took.
"""

import importlib
import json
import sys
import time
from typing import Any

from tests.benchmarks.peers.job import payload


def run(app: Any, phase: dict[str, Any]) -> dict[str, Any]:
    """Sends one phase."""
    rate, intended = phase["rate_per_second"], {}
    began = time.monotonic_ns()
    for number in range(phase["jobs"]):
        job_id = f"{phase['name']}-{number}"
        at = time.monotonic_ns()
        if rate:
            at = began + int(number * 1e9 / rate)
            time.sleep(max(0.0, (at - time.monotonic_ns()) / 1e9))
        intended[job_id] = at
        app.send(payload(job_id, number))
    return {"began": began, "intended": intended, "seconds": (time.monotonic_ns() - began) / 1e9}


def main() -> None:
    """Phases until stdin ends."""
    app = importlib.import_module(f"tests.benchmarks.peers.{sys.argv[1]}_app")
    for line in sys.stdin:
        print(json.dumps(run(app, json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
