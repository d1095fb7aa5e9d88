"""`meshyard routing` on real topics: rules, their events, and two operators at once."""

import json
from typing import Any

import pytest

from gateway.cli.broker import ExclusiveWriter, broker_errors
from gateway.cli.errors import CommandError
from schemas.codec import Codec
from schemas.topics import PLATFORM_EVENTS, ROUTING
from streams.kafka.consumer import read_all
from streams.kafka.producer import Outgoing
from streams.kafka.settings import KafkaSettings
from tests.integration.cli.conftest import Run

STAGE = "synthetic/retopology"


def rule(meshyard: Run) -> dict[str, Any]:
    code, out, _ = meshyard("routing", "show", STAGE, "--json")
    assert code == 0
    found: dict[str, Any] = json.loads(out)[0]
    return found


def events(settings: KafkaSettings, codec: Codec) -> list[dict[str, Any]]:
    records = (
        codec.decode(bytes(m.value() or b""), "platform_event") for m in read_all(settings, PLATFORM_EVENTS, [0])
    )
    return [record for record in records if record["subject"] == STAGE]


def test_a_canary_is_set_promoted_and_rolled_back(meshyard: Run, settings: KafkaSettings, codec: Codec) -> None:
    code, out, _ = meshyard(
        "routing", "set", STAGE, "1=90", "2=10", "--stable", "1", "--experiment", "canary-7",
        "--guard-min-tasks", "7", "--by", "ann", "--reason", "try it",
    )  # fmt: skip
    assert code == 0
    first = rule(meshyard)
    assert out == f"{STAGE}: 1=90 2=10, stable 1, revision {first['revision']}\n"
    assert (first["stable"], first["experiment"], first["changed_by"]) == ("1", "canary-7", "ann")
    assert first["guard"] == {"min_tasks": 7, "failure_margin": 0.05, "p95_margin": 0.5}

    assert meshyard("routing", "set", STAGE, "1=50", "2=50", "--no-guard")[0] == 0
    grown = rule(meshyard)
    assert (grown["experiment"], grown["stable"], grown["guard"]) == ("canary-7", "1", None)

    assert meshyard("routing", "rollback", STAGE, "--by", "bob")[1].startswith(f"{STAGE}: 1=100 2=0, stable 1")
    assert meshyard("routing", "promote", STAGE, "2")[1].startswith(f"{STAGE}: 1=0 2=100, stable 2")
    assert rule(meshyard)["revision"] == first["revision"] + 3

    told = events(settings, codec)[-4:]
    assert [event["kind"] for event in told] == ["routing"] * 4
    assert [event["detail"]["after"] for event in told] == ["1=90 2=10", "1=50 2=50", "1=100 2=0", "1=0 2=100"]
    assert told[0]["detail"]["reason"] == "try it"
    assert told[2]["detail"]["changed_by"] == "bob"


def test_the_table_names_shares_and_guard(meshyard: Run) -> None:
    meshyard("routing", "set", STAGE, "1=90", "2=10")
    code, out, _ = meshyard("routing", "show")
    assert code == 0
    line = next(line for line in out.splitlines() if STAGE in line)
    assert "1=90 2=10" in line
    assert "after 50 tasks: failures +0.05, p95 +50 %" in line


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["set", "synthetic/paint", "1=1"], "PIPELINE/STAGE"),
        (["set", STAGE, "7=1"], "VERSION=SHARE"),
        (["set", STAGE, "1=0"], "VERSION=SHARE"),
        (["set", STAGE, "1=1", "1=2"], "VERSION=SHARE"),
        (["set", STAGE, "1=1", "--stable", "2"], "--stable"),
        (["set", STAGE, "1=1", "--guard-min-tasks", "0"], "--guard-min-tasks"),
        (["set", STAGE, "1=1", "--guard-p95-margin", "-1"], "--guard-p95-margin"),
        (["set", STAGE, "1"], "VERSION=SHARE"),
        (["promote", STAGE, "9"], "VERSION"),
        (["promote", "assembly/texture", "1"], "PIPELINE/STAGE"),
        (["rollback", STAGE, "9"], "VERSION"),
        (["fly"], "ACTION"),
    ],
)
def test_what_cannot_be_used_is_one_line_and_changes_nothing(meshyard: Run, argv: list[str], named: str) -> None:
    meshyard("routing", "set", STAGE, "1=90", "2=10")
    before = rule(meshyard)
    code, out, error = meshyard("routing", *argv)
    assert code == 2
    assert out == ""
    assert error.count("\n") == 1
    assert named in error
    assert rule(meshyard) == before


def test_a_stage_without_a_rule_is_named(meshyard: Run) -> None:
    code, _, error = meshyard("routing", "show", "assembly/texture")
    assert code == 1
    assert "its newest version serves everybody" in error


def test_of_two_operators_the_one_who_began_first_is_refused(settings: KafkaSettings, meshyard: Run) -> None:
    first = ExclusiveWriter(settings, "routing")
    ExclusiveWriter(settings, "routing")
    before = len(list(read_all(settings, ROUTING, [0])))
    with pytest.raises(CommandError, match="somebody else changed this"), broker_errors(settings):
        first.write([Outgoing(ROUTING, "x", b"x")])
    assert len(list(read_all(settings, ROUTING, [0]))) == before
    assert meshyard("routing", "set", STAGE, "1=1")[0] == 0
