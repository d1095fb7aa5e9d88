"""The job of all peers, and where its result is stored."""

import functools
import os
from typing import Any

import redis

REDIS_URL = os.environ.get("PEERS_REDIS_URL", "redis://127.0.0.1:6379/0")
RESULTS = "peers:results"


def payload(job_id: str, number: int) -> dict[str, Any]:
    """A request of about 300 bytes of JSON, of the same content as a request to Meshyard."""
    return {
        "job_id": job_id,
        "user_id": f"bench-{number % 10}",
        "workflow": "text-to-3d",
        "prompt": "a low-poly wooden treasure chest " * 4,
        "stages": ["generate", "retopology", "texture"],
        "formats": ["glb"],
        "quality": "standard",
        "seed": number,
    }


def store(request: dict[str, Any]) -> None:
    """What the last stage does: the job's result is stored."""
    _client().rpush(RESULTS, request["job_id"])


@functools.cache
def _client() -> Any:
    """This process's connection."""
    return redis.Redis.from_url(REDIS_URL)
