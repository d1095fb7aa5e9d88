"""The Compose file and the Dockerfile name only what is there."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from gateway.cli.__main__ import parser
from schemas.topics import catalogue

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.kafka.yml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text()
# The Compose Specification's own schema (Apache-2.0), as the npm package dclint 3.1.0 carries it.
SCHEMA = json.loads((Path(__file__).parents[1] / "support" / "data" / "compose-spec.schema.json").read_text())
OURS = {name: service for name, service in COMPOSE["services"].items() if service["image"] == "meshyard"}
ONE_SHOT = {name for name, service in COMPOSE["services"].items() if service["restart"] == "no"}


def test_the_file_fits_the_compose_specification() -> None:
    jsonschema.Draft7Validator(SCHEMA).validate(COMPOSE)


def test_the_schema_would_find_a_mistake() -> None:
    wrong = {"services": {"kafka": {**COMPOSE["services"]["kafka"], "healthchek": {}}}}
    assert not jsonschema.Draft7Validator(SCHEMA).is_valid(wrong)


def test_every_variable_of_a_role_is_one_that_code_reads() -> None:
    sources = "\n".join(
        file.read_text()
        for package in ("schemas", "streams", "inference", "analytics", "gateway")
        for file in (ROOT / package).rglob("*.py")
    )
    for name, service in OURS.items():
        for variable in service["environment"]:
            if variable.startswith("MESHYARD_"):
                assert f'"{variable}"' in sources, f"{name}: nothing reads {variable}"
            else:
                assert variable.startswith("AWS_"), f"{name}: {variable} is not one of ours"


def test_the_kafka_image_is_told_what_the_embedded_broker_is_told() -> None:
    from streams.local.config import Listeners, server_properties

    local = dict(
        line.split("=", 1) for line in server_properties(Listeners(port=1, controller_port=2), Path("/")).splitlines()
    )
    for variable, value in COMPOSE["services"]["kafka"]["environment"].items():
        assert variable.startswith("KAFKA_")
        setting = variable.removeprefix("KAFKA_").lower().replace("_", ".")
        assert setting in local, f"{variable} is no setting of the embedded broker"
        if not re.search(r"listeners|voters|log\.dirs", setting):
            assert value == local[setting], variable


@pytest.mark.parametrize("name", sorted(OURS))
def test_every_command_exists_and_takes_its_arguments(name: str) -> None:
    command: list[str] = OURS[name]["command"]
    if command[0] == "meshyard":
        parser().parse_args(command[1:])
        return
    assert command[:2] == ["python", "-m"]
    module, arguments = command[2], command[3:]
    assert importlib.util.find_spec(f"{module}.__main__") is not None
    if arguments:
        usage = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=True)
        for argument in arguments:
            if argument.startswith("--") or argument.isalpha():
                assert argument in usage.stdout or argument == "default"


def test_services_wait_for_what_they_need_and_come_back() -> None:
    for name, service in COMPOSE["services"].items():
        for needed, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in COMPOSE["services"][needed], f"{name} waits for the health of {needed}"
            else:
                assert needed in ONE_SHOT
        assert name in ONE_SHOT or service["restart"] == "unless-stopped"
    assert {"kafka", "clickhouse", "objects", "gateway"} <= {
        name for name, service in COMPOSE["services"].items() if "healthcheck" in service
    }


def test_every_volume_is_named_and_used() -> None:
    used = {volume.split(":")[0] for service in COMPOSE["services"].values() for volume in service.get("volumes", ())}
    assert used == set(COMPOSE["volumes"])


def test_worker_slots_are_distinct_and_have_a_partition() -> None:
    slots = [int(service["command"][-1]) for name, service in OURS.items() if name.startswith("worker-")]
    work = next(topic for topic in catalogue() if topic.name == "work.main")
    assert len(set(slots)) == len(slots)
    assert work.partitions is not None
    assert max(slots) < work.partitions


def test_the_dockerfile_copies_what_is_there() -> None:
    for line in DOCKERFILE.splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            for source in line.split()[1:-1]:
                assert (ROOT / source).exists(), f"COPY {source}"
    packages = set(re.findall(r"^COPY (\w+) ", DOCKERFILE, re.MULTILINE))
    assert packages == {"schemas", "streams", "inference", "analytics", "gateway"}
    assert "USER meshyard" in DOCKERFILE
