"""What a worker must know. One frozen record, read from the environment and the command line once."""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from schemas.pipelines import PIPELINES
from streams.kafka.settings import SettingsError, positive_int

# A WorkBatch of so many items with requests of the greatest usual size still fits a record.
MOST_TASKS: Final = 256


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """One slot's worker.

    pool, slot: which place this is; the slot is a partition of the domain's work topic. serves: what it can run, each
    as pipeline_id/stage. resource_class: gpu, cpu or remote, prices go by it; None lets the child say whether it sees
    a GPU. versions: the model versions that it loads, each as pipeline_id@version; empty: every one. capacity: how
    many tasks it takes at once. data_dir: its scratch files. stage_timeout_seconds: a longer attempt is killed (error
    class timeout). load_timeout_seconds: how long the child may take to load. silence_seconds: a child that says
    nothing for so long while it works is stuck. drain_seconds: what running stages get to end after SIGTERM.
    cancel_grace_seconds: what one gets to stop after a cancel. slot_grace_seconds: after so long a silence the slot
    monitor gives the slot up.
    """

    pool: str
    slot: int
    serves: tuple[str, ...]
    data_dir: Path
    resource_class: str | None = None
    versions: tuple[str, ...] = ()
    capacity: int = 1
    stage_timeout_seconds: float = 600.0
    load_timeout_seconds: float = 300.0
    silence_seconds: float = 120.0
    drain_seconds: float = 20.0
    cancel_grace_seconds: float = 2.0
    slot_grace_seconds: float = 10.0

    @classmethod
    def from_env(
        cls,
        env: Mapping[str, str] = os.environ,
        *,
        pool: str | None = None,
        slot: int | None = None,
        capacity: int | None = None,
        synthetic: bool = False,
    ) -> "WorkerSettings":
        """Reads MESHYARD_POOL, _SLOT, _SERVES, _VERSIONS, _CAPACITY, _RESOURCE_CLASS, _DATA_DIR and the time limits;
        arguments that are given win. Raises SettingsError."""
        slot = slot if slot is not None else _slot(env)
        if slot < 0:
            raise SettingsError("MESHYARD_SLOT", f"{slot} is negative; give the slot's number, from 0")
        capacity = capacity if capacity is not None else int(positive_int(env, "MESHYARD_CAPACITY", 1))
        if not 1 <= capacity <= MOST_TASKS:
            raise SettingsError("MESHYARD_CAPACITY", f"{capacity}; give a number of tasks from 1 to {MOST_TASKS}")
        resource_class = env.get("MESHYARD_RESOURCE_CLASS") or None
        if resource_class not in (None, "gpu", "cpu", "remote"):
            raise SettingsError("MESHYARD_RESOURCE_CLASS", f"{resource_class!r}; give gpu, cpu or remote")
        data_dir = env.get("MESHYARD_DATA_DIR")
        return cls(
            pool=pool or env.get("MESHYARD_POOL") or ("synthetic" if synthetic else "default"),
            slot=slot,
            serves=_serves(env, synthetic),
            data_dir=Path(data_dir) if data_dir else Path(tempfile.gettempdir()) / "meshyard",
            resource_class=resource_class,
            versions=_versions(env),
            capacity=capacity,
            stage_timeout_seconds=positive_int(env, "MESHYARD_STAGE_TIMEOUT_SECONDS", 600),
            load_timeout_seconds=positive_int(env, "MESHYARD_LOAD_TIMEOUT_SECONDS", 300),
            drain_seconds=positive_int(env, "MESHYARD_DRAIN_SECONDS", 20),
            slot_grace_seconds=positive_int(env, "MESHYARD_SLOT_GRACE_SECONDS", 10),
        )


def _slot(env: Mapping[str, str]) -> int:
    text = env.get("MESHYARD_SLOT")
    if text is None or not text.isdecimal():
        raise SettingsError("MESHYARD_SLOT", f"{text!r}; give the slot's number, from 0 (or --slot N)")
    return int(text)


def _serves(env: Mapping[str, str], synthetic: bool) -> tuple[str, ...]:
    text = env.get("MESHYARD_SERVES")
    if text is None:
        pipeline_id = "synthetic" if synthetic else "assembly"
        return tuple(f"{pipeline_id}/{spec.name}" for spec in PIPELINES[pipeline_id].stages)
    known = {f"{p.pipeline_id}/{spec.name}" for p in PIPELINES.values() for spec in p.stages}
    named = tuple(part.strip() for part in text.split(",") if part.strip())
    for name in named:
        if name not in known:
            raise SettingsError(
                "MESHYARD_SERVES", f"{name!r} is no pipeline/stage; known are {', '.join(sorted(known))}"
            )
    if not named:
        raise SettingsError("MESHYARD_SERVES", "empty; give pipeline/stage, comma-separated")
    return named


def _versions(env: Mapping[str, str]) -> tuple[str, ...]:
    named = tuple(part.strip() for part in env.get("MESHYARD_VERSIONS", "").split(",") if part.strip())
    known = {f"{p.pipeline_id}@{version}" for p in PIPELINES.values() for version in p.model_versions}
    for name in named:
        if name not in known:
            raise SettingsError(
                "MESHYARD_VERSIONS", f"{name!r} is no pipeline@version; known are {', '.join(sorted(known))}"
            )
    return named
