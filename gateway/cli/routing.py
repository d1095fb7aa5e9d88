"""`meshyard routing show|set|promote|rollback`: which model versions serve a stage, and in what shares."""

import argparse
import json
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from gateway.cli.broker import ExclusiveWriter, add_broker, add_operator, broker_errors, kafka_settings
from gateway.cli.errors import CommandError, UsageError

if TYPE_CHECKING:
    from streams.kafka.settings import KafkaSettings

HELP = "show or change which model versions serve a stage"
MIN_TASKS: Final = 50
FAILURE_MARGIN: Final = 0.05
P95_MARGIN: Final = 0.5

Rule = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=type(parser))
    show = actions.add_parser("show", help="the rules in force", description="Show the rules in force.")
    show.add_argument("name", nargs="?", metavar="PIPELINE/STAGE", help="only this one")
    show.add_argument("--json", action="store_true", help="print JSON")

    change = actions.add_parser("set", help="set the shares of versions", description="Set the shares of versions.")
    change.add_argument("name", metavar="PIPELINE/STAGE", help="the stage, for example synthetic/generate")
    change.add_argument("arms", nargs="+", type=arm, metavar="VERSION=SHARE", help="for example 1=90 2=10")
    change.add_argument(
        "--stable", metavar="VERSION", help="what everything falls back to (default: as before, else the largest share)"
    )
    change.add_argument(
        "--experiment",
        metavar="NAME",
        help="users stay on their arm while it stays the same (default: as before, else PIPELINE/STAGE)",
    )
    change.add_argument("--no-guard", action="store_true", help="a bad arm is not taken back by itself")
    change.add_argument(
        "--guard-min-tasks",
        type=int,
        default=MIN_TASKS,
        metavar="N",
        help=f"tasks of each arm before the guard judges ({MIN_TASKS})",
    )
    change.add_argument(
        "--guard-failure-margin",
        type=float,
        default=FAILURE_MARGIN,
        metavar="SHARE",
        help=f"an arm is taken back when it fails so much more often than the stable one ({FAILURE_MARGIN})",
    )
    change.add_argument(
        "--guard-p95-margin",
        type=float,
        default=P95_MARGIN,
        metavar="SHARE",
        help=f"or when its p95 of run seconds is longer by this share ({P95_MARGIN})",
    )
    promote = actions.add_parser("promote", help="one version serves everybody", description="Make a version stable.")
    promote.add_argument("name", metavar="PIPELINE/STAGE", help="the stage")
    promote.add_argument("arm", metavar="VERSION", help="an arm of its rule")
    back = actions.add_parser("rollback", help="back to the stable version", description="Go back to the stable one.")
    back.add_argument("name", metavar="PIPELINE/STAGE", help="the stage")
    back.add_argument("arm", nargs="?", metavar="VERSION", help="only this arm (default: all but the stable one)")
    for changing in (change, promote, back):
        add_operator(changing)
    for action in (show, change, promote, back):
        add_broker(action)


def arm(text: str) -> tuple[str, float]:
    """VERSION=SHARE. Raises ArgumentTypeError."""
    version, equals, share = text.rpartition("=")
    try:
        if not version or not equals:
            raise ValueError
        return version, float(share)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no arm; give VERSION=SHARE, for example 2=10") from None


def run(arguments: argparse.Namespace) -> int:
    """Show or change."""
    if arguments.action == "set":  # what is wrong in itself is said before anybody is asked
        _check(_rule_of(arguments, None, 0))
    settings = kafka_settings(arguments)
    with broker_errors(settings):
        if arguments.action == "show":
            return _show(settings, arguments)
        writer = ExclusiveWriter(settings, "routing")
        before = read_rules(settings).get(arguments.name)
        after = _changed(arguments, before)
        _write(settings, writer, before, after)
    from streams.policy.routing import shares

    sys.stdout.write(f"{after['name']}: {shares(after)}, stable {after['stable']}, revision {after['revision']}\n")
    return 0


def read_rules(settings: "KafkaSettings") -> dict[str, Rule]:
    """The newest revision of each rule."""
    from schemas.codec import Codec
    from schemas.registry import registry_from_url
    from schemas.topics import ROUTING
    from streams.kafka.consumer import read_all

    codec, rules = Codec(registry_from_url(settings.registry_url)), dict[str, Rule]()
    for message in read_all(settings, ROUTING, [0]):
        value = message.value()
        if not isinstance(value, bytes):
            continue
        rule = codec.decode(value, "routing_rule")
        if rule["revision"] > rules.get(rule["name"], {"revision": -1})["revision"]:
            rules[rule["name"]] = rule
    return rules


def _changed(arguments: argparse.Namespace, before: Rule | None) -> Rule:
    from streams.policy import routing

    at = int(time.time() * 1000)
    if arguments.action == "set":
        rule = _rule_of(arguments, before, at)
        _check(rule)
        return rule
    if before is None:
        raise UsageError("PIPELINE/STAGE", f"{arguments.name!r} has no rule; `meshyard routing show` lists them")
    versions = [arm["model_version"] for arm in before["arms"]]
    if arguments.arm is not None and arguments.arm not in versions:
        raise UsageError("VERSION", f"{arguments.arm!r} is no arm of {arguments.name}; it has {', '.join(versions)}")
    by, why = arguments.by, arguments.reason
    if arguments.action == "promote":
        return routing.promoted(before, arguments.arm, by=by, reason=why or "promoted", at=at)
    if arguments.arm == before["stable"]:
        raise UsageError("VERSION", f"{arguments.arm!r} is the stable one; name another, or promote one first")
    return routing.rolled_back(before, version=arguments.arm, by=by, reason=why or "rolled back", at=at)


def _rule_of(arguments: argparse.Namespace, before: Rule | None, at: int) -> Rule:
    """The rule that `set` asks for; what is not given stays as it was."""
    pipeline_id, _, stage = arguments.name.partition("/")
    largest = max(arguments.arms, key=lambda arm: arm[1])[0]
    versions = [version for version, _ in arguments.arms]
    kept = before["stable"] if before is not None and before["stable"] in versions else largest
    guard = {
        "min_tasks": arguments.guard_min_tasks,
        "failure_margin": arguments.guard_failure_margin,
        "p95_margin": arguments.guard_p95_margin,
    }
    return {
        "name": arguments.name,
        "pipeline_id": pipeline_id,
        "stage": stage,
        "experiment": arguments.experiment or (before["experiment"] if before is not None else arguments.name),
        "arms": [{"model_version": version, "weight": share} for version, share in arguments.arms],
        "stable": arguments.stable or kept,
        "guard": None if arguments.no_guard else guard,
        "revision": before["revision"] + 1 if before is not None else 1,
        "changed_by": arguments.by,
        "reason": arguments.reason,
        "changed_at": at,
    }


_OPTIONS: Final = {
    "arms": "VERSION=SHARE",
    "stable": "--stable",
    "guard.min_tasks": "--guard-min-tasks",
    "guard.failure_margin": "--guard-failure-margin",
    "guard.p95_margin": "--guard-p95-margin",
}


def _check(rule: Rule) -> None:
    """Raises UsageError."""
    from schemas.pipelines import PIPELINES
    from streams.policy.routing import problem

    pipeline = PIPELINES.get(rule["pipeline_id"])
    stages = [f"{p.pipeline_id}/{stage.name}" for p in PIPELINES.values() for stage in p.stages]
    if pipeline is None or rule["name"] not in stages:
        raise UsageError("PIPELINE/STAGE", f"{rule['name']!r} is not known; there are {', '.join(stages)}")
    wrong = problem(rule)
    if wrong is not None:
        raise UsageError(_OPTIONS[wrong[0]], wrong[1])
    for found in rule["arms"]:
        if found["model_version"] not in pipeline.model_versions:
            offered = ", ".join(pipeline.model_versions)
            raise UsageError(
                "VERSION=SHARE", f"{found['model_version']!r} is no version of {pipeline.pipeline_id}; it has {offered}"
            )


def _write(settings: "KafkaSettings", writer: ExclusiveWriter, before: Rule | None, after: Rule) -> None:
    """The rule and the event that tells of it, or neither."""
    from schemas.codec import Codec
    from schemas.registry import registry_from_url
    from schemas.topics import PLATFORM_EVENTS, ROUTING
    from streams.kafka.producer import Outgoing
    from streams.policy.routing import routing_event

    codec = Codec(registry_from_url(settings.registry_url))
    event = codec.encode("platform_event", routing_event(before, after))
    writer.write(
        [
            Outgoing(ROUTING, after["name"], codec.encode("routing_rule", after)),
            Outgoing(PLATFORM_EVENTS, after["name"], event),
        ]
    )


def _show(settings: "KafkaSettings", arguments: argparse.Namespace) -> int:
    rules = read_rules(settings)
    if arguments.name is not None:
        rules = {name: rule for name, rule in rules.items() if name == arguments.name}
        if not rules:
            raise CommandError(f"{arguments.name} has no rule: its newest version serves everybody")
    if arguments.json:
        sys.stdout.write(json.dumps([rules[name] for name in sorted(rules)], indent=1) + "\n")
        return 0
    from rich.console import Console
    from rich.table import Table

    from gateway.jobs import iso
    from streams.policy.routing import shares

    table = Table("stage", "shares", "stable", "experiment", "guard", "revision", "changed", "by", "why")
    for name in sorted(rules):
        rule = rules[name]
        table.add_row(
            name,
            shares(rule),
            rule["stable"],
            rule["experiment"],
            _guard(rule),
            str(rule["revision"]),
            iso(rule["changed_at"]),
            rule["changed_by"],
            rule["reason"],
        )
    console = Console(soft_wrap=True)
    console.print(table if rules else "no rules: the newest version of each pipeline serves everybody")
    return 0


def _guard(rule: Rule) -> str:
    guard = rule["guard"]
    if guard is None:
        return "none"
    return (
        f"after {guard['min_tasks']} tasks: failures +{guard['failure_margin']:g}, p95 +{100 * guard['p95_margin']:g} %"
    )
