"""`meshyard simulate --inbox`: a recorded inbox folded again, and what would have been with other weights or slots."""

import argparse
import os
import re
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from gateway.cli.errors import CommandError, UsageError
from gateway.cli.output import write_json
from gateway.cli.simulate import read_file, waits_table
from gateway.cli.target import data_dir_of

if TYPE_CHECKING:
    from streams.kafka.settings import KafkaSettings
    from streams.objects import ObjectStore
    from streams.policy.config import Policy
    from streams.simulate.recorded import Recording
    from streams.simulate.replay import Replay

DIMENSIONS = ("all", "lane", "tier", "user")
_AGE = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def replay_inbox(arguments: argparse.Namespace) -> int:
    """Replay, compare with what was sent, and with --weights or --slots tell what would have been."""
    from rich.console import Console

    from schemas.codec import Codec
    from streams.simulate import recorded, replay

    now = time.time()
    since, until = (moment(option, text, now) for option, text in (("--from", arguments.since), ("--to", "0s")))
    if arguments.until is not None:
        until = moment("--to", arguments.until, now)
    policy = _policy(arguments)
    settings, objects = _installation(arguments)
    codec, console = Codec(), Console(soft_wrap=True)
    with Console(stderr=True, soft_wrap=True).status("Reading the inbox") as line:
        recording = _find(settings, objects, arguments.inbox, since, until)
        line.update("Folding it again")
        inbox = recorded.read_inbox(settings, codec, recording)
        found = replay.refold(recording.domain, recording.snapshot, inbox, recording.window)
        line.update("Comparing with the work that was sent")
        compared = replay.compare(codec, found.dispatches, recorded.read_work(settings, codec, recording.domain))
    start = "its beginning" if recording.start == 0 else f"the snapshot before offset {recording.start}"
    console.print(f"inbox {recording.domain}, offsets {recording.window[0]} to {recording.window[1]}, from {start}")
    for difference in compared.differing:
        console.print(difference)
    if compared.differing:
        raise CommandError(f"{len(found.dispatches)} dispatches replayed, {len(compared.differing)} slots differ")
    checked = len(found.dispatches) - compared.unchecked
    console.print(f"{checked} dispatches, identical")
    if compared.unchecked:
        console.print(f"{compared.unchecked} older ones could not be compared: the work topic no longer holds them")
    figures: dict[str, Any] = {"dispatches": checked, "unchecked": compared.unchecked, "identical": True}
    if policy is not None or arguments.slots is not None:
        figures |= _counterfactual(arguments, console, recording, found, policy)
    write_json(arguments.json, figures)
    return 0


def _counterfactual(
    arguments: argparse.Namespace, console: Any, recording: "Recording", found: "Replay", policy: "Policy | None"
) -> dict[str, Any]:
    """Runs it, prints both sides of the table and draws them; the figures of both sides."""
    from dataclasses import asdict

    from streams.simulate import counterfactual

    ledger, guessed = counterfactual.run(recording.domain, found.facts, policy, arguments.slots)
    end = found.last_arrival_ms
    sides = {
        side: {dimension: one.waits(dimension, until=end) for dimension in DIMENSIONS}
        for side, one in (("recorded", found.ledger), ("counterfactual", ledger))
    }
    console.print(waits_table("Seconds until the first start", sides))
    if guessed:
        console.print(f"{guessed} attempts did not end in the recording: their jobs' or stages' usual ends were taken")
    if arguments.plot is not None:
        from streams.simulate.plots import plot_comparison

        title = f"{recording.domain}: recorded, and what would have been"
        plot_comparison(sides, ("lane", "tier", "user"), arguments.plot, title)
    return {
        "guessed": guessed,
        **{
            side: {d: {name: asdict(waits) for name, waits in groups.items()} for d, groups in dimensions.items()}
            for side, dimensions in sides.items()
        },
    }


def moment(option: str, text: str, now: float) -> int:
    """Milliseconds since 1970 of an age (90s, 10m, 2h, 1d) or an ISO time, UTC unless it says so. Raises UsageError."""
    age = _AGE.fullmatch(text)
    if age is not None:
        return round(1000 * (now - float(age[1]) * _UNITS[age[2]]))
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(option, f"{text!r} is no time; give one like 2026-11-22T19:00:00, or an age like 2h") from None
    return round(1000 * (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp())


def _policy(arguments: argparse.Namespace) -> "Policy | None":
    from streams.policy.config import PolicyError, load_policy

    if arguments.weights is None:
        return None
    try:
        return load_policy(read_file("--weights", arguments.weights))
    except PolicyError as error:
        raise UsageError(f"--weights: {error.field}", str(error).partition(": ")[2]) from None


def _installation(arguments: argparse.Namespace) -> "tuple[KafkaSettings, ObjectStore]":
    """MESHYARD_KAFKA_BOOTSTRAP and MESHYARD_OBJECTS_URL, else those of the local stack."""
    from gateway.supervisor.state import running
    from streams.kafka.settings import KafkaSettings
    from streams.objects import ObjectStore

    env = dict(os.environ)
    if not env.get("MESHYARD_KAFKA_BOOTSTRAP"):
        stack = running(data_dir_of(arguments))
        if stack is None or stack.kafka is None:
            raise CommandError("no broker known: start a stack with `meshyard up` or set MESHYARD_KAFKA_BOOTSTRAP")
        env |= {"MESHYARD_KAFKA_BOOTSTRAP": stack.kafka, "MESHYARD_OBJECTS_URL": stack.objects_url}
    return KafkaSettings.from_env(env), ObjectStore.from_env(env)


def _find(settings: "KafkaSettings", objects: "ObjectStore", domain: str, since: int, until: int) -> "Recording":
    """The recording, up to what the scheduler has acknowledged. Raises CommandError."""
    from confluent_kafka import KafkaException

    from schemas.topics import schedule_topic
    from streams.agents.groups import scheduler_group
    from streams.kafka.consumer import committed_offset
    from streams.simulate.recorded import NoRecording, find

    try:
        committed = committed_offset(settings, scheduler_group(domain), schedule_topic(domain), 0)
        return find(settings, objects, domain, since, until, committed or 0)
    except NoRecording as error:
        raise CommandError(str(error)) from None
    except KafkaException as error:
        raise CommandError(f"the broker at {settings.bootstrap} refused: {error.args[0].str()}") from error
