"""What a stage is: the contract between the worker's child process and the code that makes files.

Order of calls: `load()` once in the process that will run the stage, then `run()` any number of times,
one at a time, from one thread. A stage talks to no broker and no object store: it reads local files,
writes local files under `out_dir`, and says which of them are artefacts. The same input gives the same
artefacts on one machine.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

ErrorClass = Literal["transient", "permanent", "invalid", "oom", "overload", "rate_limited", "crash"]

GLB_TYPE = "model/gltf-binary"
JSON_TYPE = "application/json"
NPZ_TYPE = "application/x-npz"
PNG_TYPE = "image/png"


@dataclass(frozen=True, kw_only=True)
class StageInput:
    """One attempt at one stage of one job."""

    job_id: str
    stage: str
    attempt: int
    """Counts from 1."""
    prompt: str | None
    seed: int
    quality: str
    """`draft`, `standard` or `high`."""
    formats: tuple[str, ...]
    """What the user asked for, such as `glb`; a stage takes notice of those that it makes."""
    parameters: Mapping[str, str]
    inputs: Mapping[str, Path]
    """Artefacts of earlier stages by role, as local files. They may be the object store's own: never written to."""
    out_dir: Path
    """An existing, empty folder of this attempt; the stage writes nowhere else."""
    model_version: str | None = None
    """The version that was chosen for this attempt; None: the newest."""
    texture_size: int | None = None
    """Greatest edge of a texture in pixels; None: by quality."""


@dataclass(frozen=True, kw_only=True)
class StageArtefact:
    """A file that the stage made."""

    role: str
    """`field`, `mesh`, `lowpoly`, `glb`, `preview`: see the manifest."""
    path: Path
    media_type: str
    data: bytes | None = None
    """The whole file, when it is so small that the stage did not write it; `path` then gives only its name. A stage
    whose artefacts are all of this kind writes nothing to `out_dir`."""


@dataclass(frozen=True, kw_only=True)
class StageOutput:
    """What a finished stage hands back."""

    artefacts: tuple[StageArtefact, ...]
    figures: Mapping[str, float | str | bool] = field(default_factory=dict)
    """Facts about the result for the manifest: face counts, which method was used, confidence."""


class StageContext(Protocol):
    """The stage's only way to the outside while it runs."""

    def progress(self, fraction: float, message: str) -> None:
        """Tell how far the stage is (0..1). Cheap; may be called often.

        Raises `StageCanceled` when the job was canceled: the stage lets it pass through.
        """


class Stage(Protocol):
    """A stage of a pipeline; see the module's text for the order of calls."""

    name: str

    def load(self) -> None:
        """Import and load what `run` needs (weights, libraries). Raises `StageError`."""

    def run(self, stage_input: StageInput, context: StageContext, /) -> StageOutput:
        """Do the work. Raises `StageError` or `StageCanceled`; any other exception is a defect,
        which the caller reports as class `crash`."""


@runtime_checkable
class WaitingStage(Protocol):
    """What a stage offers as well whose runs may do nothing but wait: others run meanwhile."""

    def wait_seconds(self, stage_input: StageInput, /) -> float | None:
        """How long this run waits before `finish` ends it at once; None: it works, use `run`. Raises `StageError`."""

    def finish(self, stage_input: StageInput, /) -> StageOutput:
        """What `run` gives after its wait. Raises `StageError`."""


class StageCanceled(Exception):
    """the job was canceled while the stage ran"""

    def __init__(self) -> None:
        super().__init__(self.__doc__)


class StageError(Exception):
    """A stage ended without a result.

    `error_class` decides its fate (`schemas.jobs` has the table): `permanent` and `invalid` (the request itself cannot
    be served) are not tried again, the others are; `overload` and `rate_limited` not before `retry_after_seconds`.
    """

    def __init__(self, error_class: ErrorClass, message: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.error_class: ErrorClass = error_class
        self.message = message
        self.retry_after_seconds = retry_after_seconds

    def __reduce__(self) -> tuple[type["StageError"], tuple[ErrorClass, str, float | None]]:
        return (StageError, (self.error_class, self.message, self.retry_after_seconds))


class SilentContext:
    """A `StageContext` that nobody listens to, for command-line use."""

    def progress(self, fraction: float, message: str) -> None:
        """Take notice of nothing."""
