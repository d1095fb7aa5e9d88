"""Stage `retopology`: from the dense surface to a light mesh. Loads no torch."""

from inference.stages.base import NPZ_TYPE, StageArtefact, StageContext, StageError, StageInput, StageOutput
from inference.stages.settings import settings_for


class RetopologyStage:
    """Role made: `lowpoly`."""

    name = "retopology"

    def load(self) -> None:
        """Load the libraries that `run` uses."""
        from inference.geometry import simplify  # noqa: F401 - imports, before the first job

    def run(self, stage_input: StageInput, context: StageContext) -> StageOutput:
        """Simplify in a limited child; what came of it stands in the figures."""
        from inference.geometry import mesh as meshes
        from inference.geometry.simplify import simplify

        settings = settings_for(stage_input.quality, stage_input.parameters)
        source = stage_input.inputs.get("mesh")
        if source is None:
            raise StageError("invalid", "there is no mesh to work on")
        context.progress(0.05, "reading the mesh")
        try:
            dense = meshes.load(source)
            context.progress(0.15, "simplifying")
            made = simplify(dense, settings.target_faces)
        except meshes.MeshInvalidError as error:
            raise StageError("permanent", f"the mesh cannot be used: {error.reason}") from error
        path = stage_input.out_dir / "lowpoly.npz"
        meshes.save(made.mesh, path)
        context.progress(1.0, "simplified")
        return StageOutput(
            artefacts=(StageArtefact(role="lowpoly", path=path, media_type=NPZ_TYPE),),
            figures={
                "method": made.method,
                "method_reason": made.reason,
                "faces_before": float(len(dense.faces)),
                "faces": float(len(made.mesh.faces)),
                "watertight": made.mesh.is_watertight(),
                "hausdorff_share": round(made.hausdorff, 5),
            },
        )
