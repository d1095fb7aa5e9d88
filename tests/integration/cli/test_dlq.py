"""`meshyard dlq` on real topics: letters of jobs and of records, chosen, sent again or set aside."""

import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from gateway.ids import SIGNATURE_HEADER, signature
from schemas.codec import MAX_MESSAGE_BYTES, Codec
from schemas.topics import COMMANDS, DEAD, DEAD_ACTIONS, requests_topic
from streams.kafka.consumer import partition_count, read_all
from streams.kafka.producer import header
from streams.kafka.settings import KafkaSettings
from tests.integration.cli.conftest import Run
from tests.support.kafka import produce

KEY = bytes(range(32))


def request_of(job_id: str, user_id: str) -> dict[str, Any]:
    return {
        "request_id": str(uuid.uuid4()),
        "job_id": job_id,
        "user_id": user_id,
        "tier": None,
        "job_type": "model",
        "created_at": 1_000,
        "workflow": "text-to-3d",
        "pipeline_id": "synthetic",
        "model_version": None,
        "prompt": None,
        "seed": 7,
        "quality": "high",
        "formats": ["glb"],
        "parameters": {"fail": "texture"},
        "traceparent": None,
        "lane": "batch",
        "priority": 2,
        "texture_size": None,
        "run_at": 2_000,
        "on_limit": "reject",
        "debounce_key": "d",
        "debounce_seconds": 1.0,
        "start_within_seconds": None,
        "finish_within_seconds": None,
        "max_queue_depth": 3,
        "key_id": "abc",
        "retry_of": None,
        "resume": None,
    }


class DeadLetters:
    """Puts letters on the topic."""

    def __init__(self, settings: KafkaSettings, codec: Codec) -> None:
        self.settings = settings
        self.codec = codec
        self.user_id = f"user-{uuid.uuid4().hex[:8]}"

    def write(self, record: dict[str, Any], key: str = "k") -> None:
        produce(self.settings.bootstrap, DEAD, [(key, self.codec.encode_large("dead_letter", record))])

    def job(self, stage: str = "texture", at: int = 5_000, **changes: Any) -> str:
        job_id = str(uuid.uuid4())
        artefact = {
            "role": "mesh", "uri": f"{job_id}/generate/1/00", "sha256": "00", "bytes": 3,
            "media_type": "model/gltf-binary",
        }  # fmt: skip
        self.write(
            {
                **self.record(at=at),
                "topic": requests_topic("text-to-3d"),
                "partition": -1,
                "offset": -1,
                "value": self.codec.encode("job_requested", request_of(job_id, self.user_id)),
                "reason": "permanent",
                "role": "worker",
                "job": {
                    "job_id": job_id,
                    "user_id": self.user_id,
                    "stage": stage,
                    "error_class": "permanent",
                    "artefacts": [artefact] if stage != "generate" else [],
                    "traceparent": None,
                },
                **changes,
            }
        )
        return job_id

    def record(self, at: int = 5_000, **changes: Any) -> dict[str, Any]:
        return {
            "topic": COMMANDS,
            "partition": 0,
            "offset": uuid.uuid4().int % 2**40,
            "key": b"u",
            "value": b"not avro",
            "reason": "wrong_magic_byte",
            "detail": "The first byte is not 0",
            "schema_id": None,
            "attempts": 1,
            "role": self.user_id,  # a role of this test's own, to filter by
            "at": at,
            "job": None,
            **changes,
        }


@pytest.fixture
def dead(settings: KafkaSettings, codec: Codec) -> DeadLetters:
    """The topic of dead letters."""
    return DeadLetters(settings, codec)


def listed(meshyard: Run, *argv: str) -> list[dict[str, Any]]:
    code, out, error = meshyard("dlq", "list", "--json", "--limit", "10000", *argv)
    assert code == 0, error
    found: list[dict[str, Any]] = json.loads(out)
    return found


def requests_of(
    settings: KafkaSettings, codec: Codec, user_id: str
) -> list[tuple[dict[str, Any], bytes | None, bytes]]:
    topic = requests_topic("text-to-3d")
    found = []
    for message in read_all(settings, topic, range(partition_count(settings, topic))):
        if message.key() == user_id.encode():
            value = bytes(message.value() or b"")
            found.append((codec.decode(value, "job_requested"), header(message, SIGNATURE_HEADER), value))
    return found


def test_letters_are_listed_by_filter_and_time(meshyard: Run, dead: DeadLetters) -> None:
    job_id = dead.job(at=10_000)
    dead.write(dead.record(at=20_000))
    user, role = f"user={dead.user_id}", f"role={dead.user_id}"
    assert [row["subject"] for row in listed(meshyard, "--filter", user)] == [job_id]
    assert [row["kind"] for row in listed(meshyard, "--filter", role)] == ["record"]
    assert listed(meshyard, "--filter", role, "--filter", "reason=wrong_*") == listed(meshyard, "--filter", role)
    assert listed(meshyard, "--filter", role, "--filter", "reason=time*") == []
    assert listed(meshyard, "--filter", role, "--until", "1970-01-01T00:00:20") == []
    assert len(listed(meshyard, "--filter", role, "--since", "1970-01-01T00:00:20")) == 1
    assert listed(meshyard, "--filter", role, "--since", "1h") == []
    code, out, _ = meshyard("dlq", "list", "--filter", user)
    assert code == 0
    assert job_id in out
    assert "permanent" in out


def test_a_letter_that_was_written_twice_is_one(meshyard: Run, dead: DeadLetters) -> None:
    record = dead.record()
    dead.write(record)
    dead.write(record)
    assert len(listed(meshyard, "--filter", f"role={dead.user_id}")) == 1


def test_a_letter_is_shown_with_what_it_holds(meshyard: Run, dead: DeadLetters) -> None:
    job_id = dead.job()
    dead.write(dead.record(value=b"\xffzz" + b"x" * (MAX_MESSAGE_BYTES + 1)))
    name = listed(meshyard, "--filter", f"user={dead.user_id}")[0]["letter"]
    code, out, _ = meshyard("dlq", "show", name, "--json")
    assert code == 0
    shown = json.loads(out)
    assert shown["holds"]["job_id"] == job_id
    assert shown["job"]["stage"] == "texture"
    large = listed(meshyard, "--filter", f"role={dead.user_id}")[0]["letter"]
    code, out, _ = meshyard("dlq", "show", large)
    assert code == 0
    assert "holds: ff 7a 7a 78" in out
    assert f"bytes: {MAX_MESSAGE_BYTES + 4}" in out


def test_a_job_is_retried_from_its_failed_stage(
    meshyard: Run,
    dead: DeadLetters,
    settings: KafkaSettings,
    codec: Codec,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    (tmp_path / "server.key").write_text(KEY.hex())
    monkeypatch.setenv("MESHYARD_SERVER_KEY_FILE", str(tmp_path / "server.key"))
    job_id = dead.job()
    only = ("--filter", f"user={dead.user_id}")
    name = listed(meshyard, *only)[0]["letter"]

    code, out, _ = meshyard("dlq", "retry", name, "--by", "ann", "--reason", "fixed")
    assert code == 0
    [(request, signed, value)] = requests_of(settings, codec, dead.user_id)
    assert f"{name} job {job_id}: new job {request['job_id']}" in out
    assert signed == signature(KEY, value)
    assert request["job_id"] != job_id
    assert (request["retry_of"], request["resume"]["stage"]) == (job_id, "texture")
    assert [artefact["role"] for artefact in request["resume"]["artefacts"]] == ["mesh"]
    assert (request["seed"], request["quality"], request["lane"], request["priority"]) == (7, "high", "batch", 2)
    assert [request[field] for field in ("run_at", "debounce_key", "max_queue_depth", "key_id")] == [None] * 4
    assert request["on_limit"] == "wait"

    [action] = [
        record
        for message in read_all(settings, DEAD_ACTIONS, [0])
        if (record := codec.decode(bytes(message.value() or b""), "dead_letter_action"))["letter"] == name
    ]
    assert (action["action"], action["job_id"], action["by"], action["reason"]) == (
        "retry",
        request["job_id"],
        "ann",
        "fixed",
    )
    assert listed(meshyard, *only) == []
    assert listed(meshyard, *only, "--all")[0]["action"]["by"] == "ann"

    code, _, error = meshyard("dlq", "retry", name)
    assert code == 1
    assert error == f"{name}: handled already (retry by ann)\n"
    assert len(requests_of(settings, codec, dead.user_id)) == 1


def test_a_job_that_failed_at_its_first_stage_begins_anew(
    meshyard: Run, dead: DeadLetters, settings: KafkaSettings, codec: Codec
) -> None:
    dead.job(stage="generate")
    assert meshyard("dlq", "retry", "--filter", f"user={dead.user_id}")[0] == 0
    [(request, _, _)] = requests_of(settings, codec, dead.user_id)
    assert request["resume"] is None
    assert request["retry_of"] is not None


def test_many_are_retried_by_filter_and_a_dry_run_does_nothing(
    meshyard: Run, dead: DeadLetters, settings: KafkaSettings, codec: Codec
) -> None:
    jobs = [dead.job() for _ in range(3)]
    only = ("--filter", f"user={dead.user_id}", "--filter", "reason=permanent")
    code, out, _ = meshyard("dlq", "retry", *only, "--dry-run")
    assert code == 0
    assert out.count("new job") == 3
    assert len(listed(meshyard, *only)) == 3
    assert requests_of(settings, codec, dead.user_id) == []
    code, told, _ = meshyard("dlq", "retry", *only)
    assert told == out  # the ids follow from the letters
    assert {request["retry_of"] for request, _, _ in requests_of(settings, codec, dead.user_id)} == set(jobs)
    assert listed(meshyard, *only) == []


def test_a_record_goes_to_its_topic_again(meshyard: Run, dead: DeadLetters, settings: KafkaSettings) -> None:
    dead.write(dead.record(key=dead.user_id.encode(), value=b"again", partition=2))
    code, out, _ = meshyard("dlq", "retry", "--filter", f"role={dead.user_id}")
    assert code == 0
    assert f"sent again to {COMMANDS}" in out
    [message] = [m for m in read_all(settings, COMMANDS, [2]) if m.key() == dead.user_id.encode()]
    assert message.value() == b"again"


def test_discarded_letters_are_gone_from_the_list_alone(meshyard: Run, dead: DeadLetters) -> None:
    dead.write(dead.record())
    only = ("--filter", f"role={dead.user_id}")
    code, out, _ = meshyard("dlq", "discard", *only)
    assert code == 0
    assert "discarded" in out
    assert listed(meshyard, *only) == []
    assert listed(meshyard, *only, "--all")[0]["action"]["action"] == "discard"
    assert meshyard("dlq", "discard", *only)[1] == "no letters\n"


def test_what_cannot_be_sent_again_is_said_and_the_rest_goes_on(
    meshyard: Run, dead: DeadLetters, settings: KafkaSettings, codec: Codec
) -> None:
    dead.job(value=b"")
    dead.job(value=b"\x00garbage")
    good = dead.job()
    code, out, error = meshyard("dlq", "retry", "--filter", f"user={dead.user_id}")
    assert code == 1
    assert "it holds no bytes; discard it" in error
    assert "its request cannot be read (unknown_schema_id); discard it" in error
    assert out.count("new job") == 1
    assert [request["retry_of"] for request, _, _ in requests_of(settings, codec, dead.user_id)] == [good]


@pytest.mark.parametrize(
    ("argv", "code", "named"),
    [
        (["retry"], 2, "LETTER"),
        (["discard"], 2, "LETTER"),
        (["retry", "17"], 2, "LETTER"),
        (["retry", "0/999999999"], 1, "no letter 0/999999999"),
        (["show", "0/999999999"], 1, "no letter 0/999999999"),
        (["list", "--filter", "colour=red"], 2, "--filter"),
        (["list", "--filter", "reason"], 2, "--filter"),
        (["list", "--since", "yesterday"], 2, "--since"),
        (["list", "--limit", "0"], 2, "--limit"),
        (["retry", "--filter", "reason=x", "--reason", "y" * 501], 2, "--reason"),
    ],
)
def test_what_cannot_be_used_is_one_line(meshyard: Run, argv: list[str], code: int, named: str) -> None:
    found, out, error = meshyard("dlq", *argv)
    assert found == code
    assert out == ""
    assert error.count("\n") == 1
    assert named in error
