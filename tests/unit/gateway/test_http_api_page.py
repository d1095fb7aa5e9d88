"""docs/http-api.md says what the code does."""

import json
import re
from pathlib import Path

import pytest

from gateway.app import create_app
from gateway.fold import fold
from gateway.jobs import eta_json, job_json
from gateway.problems import KINDS, Problem
from gateway.services import Services
from gateway.settings import GatewaySettings
from gateway.validation import JobBody, parse_job
from schemas.jobs import JobState, Transition
from streams.kafka.settings import KafkaSettings
from tests.unit.gateway.test_jobs_view import ETA, ROW
from tests.unit.gateway.test_load import loaded

PAGE = (Path(__file__).parents[3] / "docs" / "http-api.md").read_text()
OBJECTS = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]


def test_every_route_stands_there(tmp_path: Path) -> None:
    settings = GatewaySettings(
        kafka=KafkaSettings(bootstrap="127.0.0.1:1"),
        data_dir=tmp_path,
        objects_url=f"file://{tmp_path}",
        server_key=bytes(32),
    )
    for route in create_app(Services(settings)).routes:
        for method in route.methods - {"HEAD"}:  # type: ignore[attr-defined]
            path: str = route.path  # type: ignore[attr-defined]
            if not path.startswith("/registry/"):
                assert f"| `{method} {path}` |" in PAGE


def test_every_problem_stands_there_as_it_is() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d{3}) \| (yes|no) \|$", PAGE, re.MULTILINE)
    assert [(code, int(status), retryable == "yes") for code, status, retryable in rows] == [
        (code, kind.status, kind.retryable) for code, kind in KINDS.items()
    ]


def test_every_field_of_a_request_stands_there() -> None:
    table = PAGE[PAGE.index("| Field |") : PAGE.index("The body is one JSON object")]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(JobBody.__struct_fields__)


def test_the_example_request_is_accepted() -> None:
    (body,) = re.findall(r"-d '(.*?)'", PAGE)
    assert parse_job(body.encode())[0].prompt == "a tall crimson armchair"


def test_the_example_job_has_the_fields_of_a_job() -> None:
    job = job_json(ROW, fold([]))
    example = next(found for found in OBJECTS if "stages" in found)
    assert list(example) == list(job)
    assert list(example["stages"][0]) == list(job["stages"][0])
    assert list(example["urls"]) == list(job["urls"])


def test_the_example_of_times_to_expect_has_their_fields() -> None:
    example = next(found["eta"] for found in OBJECTS if list(found) == ["eta"])
    made = eta_json(ETA, 0)
    assert made is not None
    assert {name: list(value) for name, value in example.items()} == {name: list(value) for name, value in made.items()}


def test_the_example_of_the_load_has_its_fields() -> None:
    example = next(found for found in OBJECTS if "level" in found)
    made = loaded().summary("ada", "pro", 0)
    assert made is not None
    assert list(example) == list(made)
    assert list(example["lanes"][0]) == list(made["lanes"][0])


def test_states_and_transitions_are_all_named() -> None:
    for name in (*JobState, *Transition):
        assert f"`{name}`" in PAGE


def test_the_example_problem_is_what_an_unknown_field_gets() -> None:
    example = next(found for found in OBJECTS if "type" in found)
    with pytest.raises(Problem) as caught:
        parse_job(b'{"workflow": "text-to-3d", "prompt": "x", "colour": "red"}')
    assert caught.value.body(example["request_id"]) == example
