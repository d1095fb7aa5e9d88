"""Which models there are, by name and version, and how each is loaded."""

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Final

from inference.models.errors import ModelUnavailableError

if TYPE_CHECKING:
    from inference.models.assembly import AssemblyModel


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """A published model. Its weights never change: new weights are a new version."""

    name: str
    version: str
    weights: str
    """File in `inference/models/weights/`."""
    sha256: str
    licence: str


MODELS: Final = (
    ModelEntry(
        name="assembly",
        version="1",
        weights="assembly-1.safetensors",
        sha256="569b97138fb050d09bf7ad4bb56be9694f90148e5791f2ff64509f0e800257fc",
        licence="Apache-2.0",
    ),
)


def find(name: str, version: str | None = None) -> ModelEntry:
    """The entry, or the newest version's. Raises `ModelUnavailableError`."""
    found = [entry for entry in MODELS if entry.name == name and version in (None, entry.version)]
    if not found:
        known = ", ".join(f"{entry.name} {entry.version}" for entry in MODELS)
        raise ModelUnavailableError(f"{name} {version or ''}".strip(), f"not known; there are: {known}")
    return found[-1]


def load_assembly(version: str | None = None) -> "AssemblyModel":
    """Load the built-in model (imports torch). Raises `ModelUnavailableError` and `WeightsCorruptError`."""
    from inference.models.assembly import AssemblyModel

    entry = find("assembly", version)
    path = resources.files("inference.models") / "weights" / entry.weights
    return AssemblyModel.load(Path(str(path)), entry.sha256)
