"""The collector of the peers: a process of its own that reads stored results until all jobs of a phase have one.

A line of JSON in is a phase: jobs, timeout_seconds. It answers {"reading": true} and, at the end, when each result was
read (monotonic ns) and how many came twice.
"""

import json
import sys
import time
from typing import Any

import redis

from tests.benchmarks.peers.job import REDIS_URL, RESULTS

_BATCH = 1000


def collect(client: Any, phase: dict[str, Any]) -> dict[str, Any]:
    """Reads one phase."""
    deadline = time.monotonic() + phase["timeout_seconds"]
    ended: dict[str, int] = {}
    repeated = 0
    while len(ended) < phase["jobs"] and time.monotonic() < deadline:
        first = client.blpop(RESULTS, timeout=1)
        if first is None:
            continue
        results = [first[1], *(client.lpop(RESULTS, _BATCH) or ())]
        at = time.monotonic_ns()
        for result in results:
            job_id = result.decode()
            repeated += job_id in ended
            ended.setdefault(job_id, at)
    return {"ended": ended, "repeated": repeated}


def main() -> None:
    """Phases until stdin ends."""
    client = redis.Redis.from_url(REDIS_URL)
    client.ping()
    for line in sys.stdin:
        phase = json.loads(line)
        print(json.dumps({"reading": True}), flush=True)
        print(json.dumps(collect(client, phase)), flush=True)


if __name__ == "__main__":
    main()
