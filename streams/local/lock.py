"""Write the lock of the broker's jars: `python -m streams.local.lock > streams/local/jars.lock.json`.

Run it only to move to another Kafka version; starting a broker reads the lock and resolves nothing.
"""

import hashlib
import json
import sys
import tempfile
from pathlib import Path

KAFKA = "org.apache.kafka:kafka_2.13:4.4.0"

LOG_BINDING = "org.apache.logging.log4j:log4j-slf4j-impl:2.25.5"
"""Kafka's Maven dependencies leave the choice of a log binding open; without one the broker logs nothing.
What it needs (log4j-core, slf4j-api) is among Kafka's own dependencies, in the same versions."""


def _record(coordinate: str, content: bytes) -> dict[str, str | int]:
    return {"coordinate": coordinate, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def resolve() -> list[dict[str, str | int]]:
    """Resolve Kafka and all it needs at run time, and add the log binding.

    Returns one record per jar, sorted by coordinate: `coordinate` (group:artefact:version), `sha256` (hex)
    and `bytes`.
    """
    import jgo
    from jgo.maven import MavenContext

    with tempfile.TemporaryDirectory() as scratch:
        environment = jgo.build(KAFKA, cache_dir=Path(scratch), update=True)
        locked = environment.lockfile
        files = {jar.name: jar.read_bytes() for jar in environment.all_jars}
        binding = MavenContext(repo_cache=Path(scratch)).create_dependency(LOG_BINDING).artifact.resolve()
        records = [_record(LOG_BINDING, binding.read_bytes())]
    if locked is None:
        raise LookupError("jgo wrote no lock file")
    for one in locked.dependencies:
        content = files.pop(f"{one.artifactId}-{one.version}.jar")
        records.append(_record(f"{one.groupId}:{one.artifactId}:{one.version}", content))
    if files:
        raise LookupError(f"jars without a coordinate: {sorted(files)}")
    return sorted(records, key=lambda record: str(record["coordinate"]))


def main() -> None:
    """Print the lock as JSON."""
    json.dump({"version": KAFKA.rsplit(":", 1)[1], "jars": resolve()}, sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
