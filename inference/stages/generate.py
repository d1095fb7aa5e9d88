"""Stage `generate`: from a prompt to the object as primitives, its dense surface and a first picture."""

from typing import TYPE_CHECKING

from inference.models.errors import ModelError
from inference.stages.base import (
    JSON_TYPE,
    NPZ_TYPE,
    PNG_TYPE,
    StageArtefact,
    StageContext,
    StageError,
    StageInput,
    StageOutput,
)
from inference.stages.settings import settings_for

if TYPE_CHECKING:
    from inference.models.assembly import AssemblyModel


class GenerateStage:
    """Roles made: `field`, `mesh`, `preview`."""

    name = "generate"

    def __init__(self, model_version: str | None = None) -> None:
        self._version = model_version
        self._model: AssemblyModel | None = None

    def load(self) -> None:
        """Load torch, the weights and the libraries that `run` uses."""
        from inference.geometry import preview, surface  # noqa: F401 - seconds of imports, before the first job
        from inference.models.registry import load_assembly

        try:
            self._model = load_assembly(self._version)
        except ModelError as error:
            raise StageError("permanent", str(error)) from error

    def run(self, stage_input: StageInput, context: StageContext) -> StageOutput:
        """Sample, take the surface, draw the picture."""
        from inference.export.glb import png
        from inference.geometry import mesh as meshes
        from inference.geometry import preview, surface
        from inference.geometry.primitives import InvalidPrimitives, write_json

        if self._model is None:
            raise StageError("crash", "run() before load()")
        prompt = (stage_input.prompt or "").strip()
        if not prompt:
            raise StageError("invalid", "the prompt is empty")
        settings = settings_for(stage_input.quality, stage_input.parameters)
        context.progress(0.02, "reading the prompt")
        try:
            sample = self._model.sample([prompt], [stage_input.seed])[0]
            context.progress(0.3, "taking the surface")
            mesh = surface.extract(sample.primitives, settings.resolution)
        except (InvalidPrimitives, meshes.MeshInvalidError) as error:
            raise StageError("permanent", f"the model made no object of this prompt and seed: {error}") from error
        context.progress(0.6, "drawing a preview")
        picture = preview.render(mesh, None, settings.preview_size, samples=settings.preview_samples)
        field_path = stage_input.out_dir / "field.json"
        mesh_path = stage_input.out_dir / "mesh.npz"
        preview_path = stage_input.out_dir / "preview.png"
        write_json(sample.primitives, field_path)
        meshes.save(mesh, mesh_path)
        preview_path.write_bytes(png(picture))
        context.progress(1.0, "generated")
        return StageOutput(
            artefacts=(
                StageArtefact(role="field", path=field_path, media_type=JSON_TYPE),
                StageArtefact(role="mesh", path=mesh_path, media_type=NPZ_TYPE),
                StageArtefact(role="preview", path=preview_path, media_type=PNG_TYPE),
            ),
            figures={
                "primitives": float(len(sample.primitives.primitives)),
                "faces": float(len(mesh.faces)),
                "watertight": mesh.is_watertight(),
                "confidence": round(sample.confidence, 4),
                "low_confidence": sample.low_confidence,
                "nearest_kind": sample.nearest_kind,
            },
        )
