"""A stage of given duration, result and failures, for load and fault tests. Imports no torch.

Parameters (texts, as in `JobRequested.parameters`): `seconds` or `seconds.<stage>` (duration, default 0), `mode`
(`sleep`, or `burn`, which keeps a core busy), `results` (`each`, or `last`: only the last stage makes an artefact),
`fail` (comma list of `<class>:<stage>:<attempt>`, attempt a number or `*`; class transient, permanent, invalid, oom,
overload, rate_limited or crash; `rate_limited/2.5` also says that it wants to be left alone for 2.5 s). A failure
happens when the duration is over. `<name>@<version>` (`seconds@2`, `fail@2`) counts instead of `<name>` when that model
version runs. Sleeping runs may overlap.
"""

import json
import math
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, cast, get_args

from inference.stages.base import (
    JSON_TYPE,
    StageArtefact,
    StageContext,
    StageError,
    StageInput,
    StageOutput,
)

MAX_SECONDS: Final = 3600.0
_TICK_SECONDS: Final = 0.1
_STAGES: Final = ("generate", "retopology", "texture")

FailClass = Literal["transient", "permanent", "invalid", "oom", "overload", "rate_limited", "crash"]
Mode = Literal["sleep", "burn"]
_CLASSES: Final = get_args(FailClass)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What one attempt shall do. fail: how it ends badly, None for a result; retry_after_seconds: what it then asks;
    result: whether it makes an artefact."""

    seconds: float
    mode: Mode
    fail: FailClass | None
    retry_after_seconds: float | None = None
    result: bool = True


class SyntheticStage:
    """Takes its time, then makes a small JSON artefact of role `result`, or fails as told."""

    def __init__(self, name: str, model_version: str | None = None) -> None:
        self.name = name
        self._version = model_version

    def load(self) -> None:
        """Nothing to load."""

    def run(self, stage_input: StageInput, context: StageContext) -> StageOutput:
        """Raises StageError of class invalid for bad parameters, and the failures that were asked for."""
        plan = self._plan(stage_input)
        if plan.seconds > 0:
            _pass_time(plan, context)
        return self._end(stage_input, plan)

    def wait_seconds(self, stage_input: StageInput) -> float | None:
        """A sleep is a wait; who burns or will crash works."""
        plan = self._plan(stage_input)
        return None if plan.fail == "crash" or (plan.mode == "burn" and plan.seconds > 0) else plan.seconds

    def finish(self, stage_input: StageInput) -> StageOutput:
        """Raises the failures that were asked for."""
        return self._end(stage_input, self._plan(stage_input))

    def _plan(self, stage_input: StageInput) -> Plan:
        return parse_plan(stage_input.parameters, stage_input.stage, stage_input.attempt, stage_input.model_version)

    def _end(self, stage_input: StageInput, plan: Plan) -> StageOutput:
        if plan.fail == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        elif plan.fail is not None:
            message = f"a failure of class {plan.fail}, as the request asked for"
            raise StageError(plan.fail, message, plan.retry_after_seconds)
        figures: dict[str, float | str | bool] = {"seconds": plan.seconds, "mode": plan.mode}
        if not plan.result:
            return StageOutput(artefacts=(), figures=figures)
        result = {
            "job_id": stage_input.job_id,
            "stage": stage_input.stage,
            "attempt": stage_input.attempt,
            "seed": stage_input.seed,
            "inputs": sorted(stage_input.inputs),
        }
        made = StageArtefact(
            role="result",
            path=stage_input.out_dir / "result.json",
            media_type=JSON_TYPE,
            data=json.dumps(result).encode(),
        )
        return StageOutput(artefacts=(made,), figures=figures)


def parse_plan(parameters: Mapping[str, str], stage: str, attempt: int, version: str | None = None) -> Plan:
    """What the parameters ask of this attempt. Raises StageError of class invalid."""
    if not parameters:
        return _NOTHING
    for name in parameters:
        where = name.partition("@")[0]
        if where.startswith("seconds.") and where.removeprefix("seconds.") not in _STAGES:
            raise _invalid(name, parameters[name], f"the stages are {', '.join(_STAGES)}")
    name = _name(parameters, version, f"seconds.{stage}", "seconds")
    mode_name = _name(parameters, version, "mode")
    mode = parameters.get(mode_name, "sleep")
    if mode not in ("sleep", "burn"):
        raise _invalid(mode_name, mode, "give sleep or burn")
    fail, retry_after_seconds = _failure(parameters, _name(parameters, version, "fail"), stage, attempt)
    results = parameters.get("results", "each")
    if results not in ("each", "last"):
        raise _invalid("results", results, "give each or last")
    return Plan(
        seconds=_seconds(name, parameters.get(name, "0")),
        mode=cast(Mode, mode),
        fail=fail,
        retry_after_seconds=retry_after_seconds,
        result=results == "each" or stage == _STAGES[-1],
    )


_NOTHING: Final = Plan(seconds=0.0, mode="sleep", fail=None)


def _name(parameters: Mapping[str, str], version: str | None, *names: str) -> str:
    """The first of these parameters that is given, in its form for the version first; else the last name."""
    for name in names:
        for given in (f"{name}@{version}", name):
            if given in parameters:
                return given
    return names[-1]


def _seconds(name: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= MAX_SECONDS:  # false for nan, too
        raise _invalid(name, text, f"give a number of seconds from 0 to {MAX_SECONDS:.0f}")
    return seconds


def _failure(
    parameters: Mapping[str, str], name: str, stage: str, attempt: int
) -> tuple[FailClass | None, float | None]:
    found: tuple[FailClass | None, float | None] = (None, None)
    for part in filter(None, (p.strip() for p in parameters.get(name, "").split(","))):
        what, where, which = [*part.split(":"), "", ""][:3]
        kind, with_wait, wait = what.partition("/")
        well_formed = (
            part.count(":") == 2
            and kind in _CLASSES
            and where in _STAGES
            and (which == "*" or (which.isdecimal() and int(which) >= 1))
        )
        if not well_formed:
            raise _invalid(name, part, f"give <class>:<stage>:<attempt or *>, class one of {', '.join(_CLASSES)}")
        retry_after_seconds = _seconds(name, wait) if with_wait else None
        if where == stage and which in ("*", str(attempt)) and found[0] is None:
            found = cast(FailClass, kind), retry_after_seconds
    return found


def _invalid(name: str, value: str, remedy: str) -> StageError:
    return StageError("invalid", f"parameter {name} is {value[:80]!r}: {remedy}")


def _pass_time(plan: Plan, context: StageContext) -> None:
    start = time.monotonic()
    while (gone := time.monotonic() - start) < plan.seconds:
        context.progress(gone / plan.seconds, "sleeping" if plan.mode == "sleep" else "computing")
        until = min(start + plan.seconds, time.monotonic() + _TICK_SECONDS)
        if plan.mode == "sleep":
            time.sleep(max(0.0, until - time.monotonic()))
        else:
            while time.monotonic() < until:
                sum(range(1000))
    context.progress(1.0, "done")
