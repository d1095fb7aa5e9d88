"""Which model version serves a user's task: weighted arms, a stable choice, and the guard that takes a bad one back.

The choice is weighted rendezvous hashing of (experiment, user): each arm gets the score weight / -ln(u), with u a
hash of experiment, user and version in (0, 1), and the greatest score wins. An arm is chosen with a probability of
exactly its share. When one arm's share grows, users only move to it: nobody leaves it, and nobody moves between arms
whose weights kept their proportion.

Sources: Thaler, Ravishankar, "Using name-based mappings to increase hit rates", IEEE/ACM ToN 1998 (rendezvous);
Schindelhauer, Schomaker, "Weighted distributed hash tables", SPAA 2005 (weights); Masson, Rim, Lee, "DDSketch", VLDB
2019 (quantiles from logarithmic buckets).
"""

import hashlib
import math
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

Rule = Mapping[str, Any]  # a RoutingRule record

GUARD: Final = "guard"  # changed_by of a rollback that nobody asked for
RELATIVE_ERROR: Final = 0.025  # of quantiles
_GROWTH: Final = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_SHORTEST_SECONDS: Final = 1e-3
_LONGEST_SECONDS: Final = 1e6
# The slot's, the user's or a remote provider's doing, whichever version ran.
_NOT_THE_VERSIONS_FAULT: Final = frozenset({"lost", "rate_limited", "overload"})


class ArmStats(msgspec.Struct, kw_only=True):
    """What an arm's finished tasks were like. seconds: bucket -> count of run times of those that succeeded; a bucket
    is 5 % wide, so there are 415 of them at most."""

    tasks: int = 0
    failures: int = 0
    seconds: dict[int, int] = {}

    def note(self, *, outcome: str, error_class: str | None, run_seconds: float) -> None:
        """One attempt ended. outcome: of a StageSettled; canceled ones and faults of others are left out."""
        if outcome == "canceled" or error_class in _NOT_THE_VERSIONS_FAULT:
            return
        self.tasks += 1
        if outcome != "succeeded":
            self.failures += 1
            return
        clipped = min(max(run_seconds, _SHORTEST_SECONDS), _LONGEST_SECONDS)
        bucket = math.ceil(math.log(clipped / _SHORTEST_SECONDS) / math.log(_GROWTH))
        self.seconds[bucket] = self.seconds.get(bucket, 0) + 1

    @property
    def failure_rate(self) -> float:
        """Failed attempts of all; 0 before the first."""
        return self.failures / self.tasks if self.tasks else 0.0

    def quantile_seconds(self, share: float) -> float | None:
        """A quantile of run times, within RELATIVE_ERROR; None when nothing succeeded yet."""
        rank = share * (sum(self.seconds.values()) - 1)
        passed = 0
        for bucket, count in sorted(self.seconds.items()):
            passed += count
            if passed > rank:
                return 2 * _SHORTEST_SECONDS * _GROWTH**bucket / (_GROWTH + 1)
        return None


class Routed(msgspec.Struct, kw_only=True):
    """A rule in force and what its arms have done since its experiment began; part of the scheduler's state."""

    rule: dict[str, Any]
    arms: dict[str, ArmStats] = {}

    def note(self, version: str, *, outcome: str, error_class: str | None, run_seconds: float) -> None:
        """One attempt of the rule's stage ended; versions that the rule does not name are left out."""
        if any(arm["model_version"] == version for arm in self.rule["arms"]):
            stats = self.arms.setdefault(version, ArmStats())
            stats.note(outcome=outcome, error_class=error_class, run_seconds=run_seconds)


class Verdict(NamedTuple):
    """An arm that shall be rolled back, and why."""

    model_version: str
    reason: str


def accept(known: Routed | None, rule: Rule) -> Routed | None:
    """The rule in force once `rule` was read; None when it is no newer than the known one.

    What the arms have done is kept while experiment and stable arm stay the same; an arm that comes back after its
    share was 0 begins anew, or the guard would take it back for what it did before.
    """
    if known is None:
        return Routed(rule=dict(rule))
    if rule["revision"] <= known.rule["revision"]:
        return None
    if any(known.rule[name] != rule[name] for name in ("experiment", "stable")):
        return Routed(rule=dict(rule))
    had_share = {arm["model_version"] for arm in known.rule["arms"] if arm["weight"] > 0}
    kept = {
        arm["model_version"]: known.arms[arm["model_version"]]
        for arm in rule["arms"]
        if arm["model_version"] in known.arms and (arm["model_version"] in had_share or arm["weight"] <= 0)
    }
    return Routed(rule=dict(rule), arms=kept)


def choose(rule: Rule, user_id: str) -> str:
    """The model version that serves a user; the same one as long as experiment and shares stay."""
    live = [arm for arm in rule["arms"] if arm["weight"] > 0]
    if len(live) < 2:
        return str(live[0]["model_version"] if live else rule["stable"])
    best = max(live, key=lambda arm: (_score(rule["experiment"], user_id, arm), arm["model_version"]))
    return str(best["model_version"])


def _score(experiment: str, user_id: str, arm: Mapping[str, Any]) -> float:
    text = "\x1f".join((experiment, user_id, arm["model_version"]))
    number = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 11
    uniform = (number + 0.5) / 2**53  # never 0, never 1
    return float(arm["weight"]) / -math.log(uniform)


def verdict(rule: Rule, arms: Mapping[str, ArmStats]) -> Verdict | None:
    """The first arm that the rule's guard rolls back, None when all are well or too little is known.

    An arm is judged once it and the stable arm have each finished min_tasks: its failure rate must not exceed the
    stable arm's by more than failure_margin, nor its 95th percentile of run seconds the stable arm's by more than the
    share p95_margin.
    """
    guard = rule.get("guard")
    stable = arms.get(rule["stable"])
    if guard is None or stable is None or stable.tasks < guard["min_tasks"]:
        return None
    for arm in rule["arms"]:
        version = arm["model_version"]
        stats = arms.get(version)
        if version == rule["stable"] or arm["weight"] <= 0 or stats is None or stats.tasks < guard["min_tasks"]:
            continue
        reason = _worse(stats, stable, guard)
        if reason is not None:
            return Verdict(version, reason)
    return None


def _worse(arm: ArmStats, stable: ArmStats, guard: Mapping[str, Any]) -> str | None:
    if arm.failure_rate > stable.failure_rate + guard["failure_margin"]:
        return (
            f"failure rate {arm.failure_rate:.3f} of {arm.tasks} tasks against {stable.failure_rate:.3f} of "
            f"{stable.tasks}; the margin is {guard['failure_margin']:g}"
        )
    mine, theirs = arm.quantile_seconds(0.95), stable.quantile_seconds(0.95)
    if mine is not None and theirs is not None and mine > theirs * (1 + guard["p95_margin"]):
        return f"p95 {mine:.3f} s against {theirs:.3f} s; the margin is {guard['p95_margin']:g} of it"
    return None


def promoted(rule: Rule, version: str, *, by: str, reason: str, at: int) -> dict[str, Any]:
    """The next revision: everything goes to `version`, which is the stable arm from now on. Raises KeyError for a
    version that is no arm of the rule."""
    if all(arm["model_version"] != version for arm in rule["arms"]):
        raise KeyError(version)
    arms = [{**arm, "weight": _total(rule) if arm["model_version"] == version else 0.0} for arm in rule["arms"]]
    return _next(rule, arms, stable=version, by=by, reason=reason, at=at)


def rolled_back(rule: Rule, *, version: str | None = None, by: str, reason: str, at: int) -> dict[str, Any]:
    """The next revision: the share of `version` (None: of every other arm) falls back to the stable one."""
    stable = rule["stable"]
    freed = sum(arm["weight"] for arm in rule["arms"] if _falls(arm, version, stable))
    arms = []
    for arm in rule["arms"]:
        weight = 0.0 if _falls(arm, version, stable) else arm["weight"]
        arms.append({**arm, "weight": weight + freed if arm["model_version"] == stable else weight})
    return _next(rule, arms, stable=stable, by=by, reason=reason, at=at)


def _falls(arm: Mapping[str, Any], version: str | None, stable: str) -> bool:
    return bool(arm["model_version"] != stable and version in (None, arm["model_version"]))


def _total(rule: Rule) -> float:
    return float(sum(arm["weight"] for arm in rule["arms"])) or 1.0


def _next(rule: Rule, arms: list[dict[str, Any]], *, stable: str, by: str, reason: str, at: int) -> dict[str, Any]:
    return {
        **rule,
        "arms": arms,
        "stable": stable,
        "revision": rule["revision"] + 1,
        "changed_by": by,
        "reason": reason,
        "changed_at": at,
    }


def routing_event(before: Rule | None, after: Rule, *, domain: str = "") -> dict[str, Any]:
    """The PlatformEvent of a changed rule."""
    return {
        "kind": "routing",
        "domain": domain,
        "subject": after["name"],
        "detail": {
            "before": shares(before) if before is not None else "none",
            "after": shares(after),
            "stable": after["stable"],
            "experiment": after["experiment"],
            "revision": str(after["revision"]),
            "changed_by": after["changed_by"],
            "reason": after["reason"],
        },
        "at": after["changed_at"],
    }


def shares(rule: Rule) -> str:
    """The arms for people: `1=90 2=10`."""
    return " ".join(f"{arm['model_version']}={arm['weight']:g}" for arm in rule["arms"])


def problem(rule: Rule) -> tuple[str, str] | None:
    """(field, remedy) of the first thing that is wrong with a rule, None when it can be used."""
    versions = [arm["model_version"] for arm in rule["arms"]]
    if not versions:
        return "arms", "none given; give at least one VERSION=SHARE"
    for arm in rule["arms"]:
        if not arm["model_version"]:
            return "arms", "a version has no name; give VERSION=SHARE"
        if not 0 <= arm["weight"] < math.inf:
            return "arms", f"the share of {arm['model_version']} is {arm['weight']:g}; give a number of at least 0"
    if len(set(versions)) < len(versions):
        return "arms", "a version is given twice; give each once"
    if not any(arm["weight"] > 0 for arm in rule["arms"]):
        return "arms", "all shares are 0; give one that is greater"
    if rule["stable"] not in versions:
        return "stable", f"{rule['stable']!r} is no arm; give one of {', '.join(versions)}"
    guard = rule.get("guard")
    if guard is not None:
        if guard["min_tasks"] < 1:
            return "guard.min_tasks", f"{guard['min_tasks']} is too small; give at least 1"
        for name in ("failure_margin", "p95_margin"):
            if not 0 <= guard[name] < math.inf:
                return f"guard.{name}", f"{guard[name]:g} is no margin; give a number of at least 0"
    return None
