"""Stage `texture`: unwrap the light mesh, bake the field's look onto it, write the GLB and its picture."""

from inference.stages.base import (
    GLB_TYPE,
    PNG_TYPE,
    StageArtefact,
    StageContext,
    StageError,
    StageInput,
    StageOutput,
)
from inference.stages.settings import settings_for


class TextureStage:
    """Roles made: `glb`, `preview`."""

    name = "texture"

    def load(self) -> None:
        """Load torch and the libraries that `run` uses."""
        from inference.geometry import bake, preview, unwrap  # noqa: F401 - imports, before the first job

    def run(self, stage_input: StageInput, context: StageContext) -> StageOutput:
        """Unwrap, bake, export, draw."""
        from inference.export import glb
        from inference.geometry import mesh as meshes
        from inference.geometry import preview
        from inference.geometry.bake import bake, with_exact_normals
        from inference.geometry.primitives import InvalidPrimitives, read_json
        from inference.geometry.unwrap import unwrap

        settings = settings_for(stage_input.quality, stage_input.parameters, stage_input.texture_size)
        for role in ("field", "lowpoly"):
            if role not in stage_input.inputs:
                raise StageError("invalid", f"the artefact {role!r} of an earlier stage is missing")
        context.progress(0.02, "unwrapping")
        try:
            primitives = read_json(stage_input.inputs["field"])
            unwrapped = unwrap(meshes.load(stage_input.inputs["lowpoly"]), settings.texture_size)
        except (InvalidPrimitives, meshes.MeshInvalidError) as error:
            raise StageError("permanent", f"the inputs cannot be used: {error}") from error
        context.progress(0.25, "baking textures")
        unwrapped = with_exact_normals(primitives, unwrapped)
        textures = bake(primitives, unwrapped, settings.texture_size)
        context.progress(0.6, "writing the GLB")
        glb_path, preview_path = stage_input.out_dir / "model.glb", stage_input.out_dir / "preview.png"
        glb.write(unwrapped, textures, (stage_input.prompt or "object")[:100], glb_path)
        context.progress(0.75, "drawing a preview")
        picture = preview.render(unwrapped, textures, settings.preview_size, samples=settings.preview_samples)
        preview_path.write_bytes(glb.png(picture))
        context.progress(1.0, "textured")
        return StageOutput(
            artefacts=(
                StageArtefact(role="glb", path=glb_path, media_type=GLB_TYPE),
                StageArtefact(role="preview", path=preview_path, media_type=PNG_TYPE),
            ),
            figures={
                "vertices": float(len(unwrapped.vertices)),
                "faces": float(len(unwrapped.faces)),
                "charts": float(unwrapped.charts),
                "texture_size": float(settings.texture_size),
                "glb_bytes": float(glb_path.stat().st_size),
            },
        )
