"""A stage of given duration, result and failures, for load and fault tests. Imports no torch.

Parameters (texts, as in `JobRequested.parameters`): `seconds` or `seconds.<stage>` (duration, default 0), `mode`
(`sleep` or `burn`, which keeps a core busy), `fail` (comma list of `<class>:<stage>:<attempt>`, class transient,
permanent or crash, attempt a number or `*`). A failure happens when the duration is over.
"""

import json
import math
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, cast

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

FailClass = Literal["transient", "permanent", "crash"]
Mode = Literal["sleep", "burn"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What one attempt shall do. fail: how it ends badly, None for a result."""

    seconds: float
    mode: Mode
    fail: FailClass | None


class SyntheticStage:
    """Takes its time, then writes a small JSON artefact of role `result`, or fails as told."""

    def __init__(self, name: str) -> None:
        self.name = name

    def load(self) -> None:
        """Nothing to load."""

    def run(self, stage_input: StageInput, context: StageContext) -> StageOutput:
        """Raises StageError of class invalid for bad parameters, and the failures that were asked for."""
        plan = parse_plan(stage_input.parameters, stage_input.stage, stage_input.attempt)
        if plan.seconds > 0:
            _pass_time(plan, context)
        match plan.fail:
            case "crash":
                os.kill(os.getpid(), signal.SIGKILL)
            case "transient" | "permanent":
                raise StageError(plan.fail, f"a {plan.fail} failure, as the request asked for")
            case None:
                pass
        result = {
            "job_id": stage_input.job_id,
            "stage": stage_input.stage,
            "attempt": stage_input.attempt,
            "seed": stage_input.seed,
            "inputs": sorted(stage_input.inputs),
        }
        path = stage_input.out_dir / "result.json"
        path.write_text(json.dumps(result))
        return StageOutput(
            artefacts=(StageArtefact(role="result", path=path, media_type=JSON_TYPE),),
            figures={"seconds": plan.seconds, "mode": plan.mode},
        )


def parse_plan(parameters: Mapping[str, str], stage: str, attempt: int) -> Plan:
    """What the parameters ask of this attempt. Raises StageError of class invalid."""
    for name in parameters:
        if name.startswith("seconds.") and name.removeprefix("seconds.") not in _STAGES:
            raise _invalid(name, parameters[name], f"the stages are {', '.join(_STAGES)}")
    name = f"seconds.{stage}" if f"seconds.{stage}" in parameters else "seconds"
    mode = parameters.get("mode", "sleep")
    if mode not in ("sleep", "burn"):
        raise _invalid("mode", mode, "give sleep or burn")
    return Plan(
        seconds=_seconds(name, parameters.get(name, "0")),
        mode=cast(Mode, mode),
        fail=_failure(parameters.get("fail", ""), stage, attempt),
    )


def _seconds(name: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= MAX_SECONDS:  # false for nan, too
        raise _invalid(name, text, f"give a number of seconds from 0 to {MAX_SECONDS:.0f}")
    return seconds


def _failure(text: str, stage: str, attempt: int) -> FailClass | None:
    found: FailClass | None = None
    for part in filter(None, (p.strip() for p in text.split(","))):
        kind, where, which = [*part.split(":"), "", ""][:3]
        well_formed = (
            part.count(":") == 2
            and kind in ("transient", "permanent", "crash")
            and where in _STAGES
            and (which == "*" or (which.isdecimal() and int(which) >= 1))
        )
        if not well_formed:
            raise _invalid("fail", part, "give <transient|permanent|crash>:<stage>:<attempt or *>")
        if where == stage and which in ("*", str(attempt)):
            found = found or cast(FailClass, kind)
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
