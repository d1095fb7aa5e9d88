"""A sheet of prompts through the whole chain: `python -m inference.training.sheet --out FILE`.

Every picture is the preview of a textured GLB, made by the three stages exactly as a worker's child runs
them. One row of seeds a prompt column; nothing is picked.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import structlog
from PIL import Image, ImageDraw

from inference.stages.base import SilentContext, Stage, StageInput, StageOutput
from inference.stages.factory import STAGES, load_stage

log = structlog.get_logger()

PROMPTS = (
    "a tall crimson armchair",
    "a turquoise car",
    "a blue rocket with red fins",
    "a white house with a red roof",
    "a charcoal sofa with oak legs",
    "a red mushroom with white spots",
    "a slim golden sword",
    "a silver robot with cyan eyes",
    "a navy blue guitar",
    "a yellow mug",
    "a stone castle tower",
    "an ivory airplane with orange wings",
)


def run_chain(stages: Sequence[Stage], prompt: str, seed: int, folder: Path) -> dict[str, StageOutput]:
    """All stages of one prompt in this process; each stage's output by its name."""
    outputs: dict[str, StageOutput] = {}
    inputs: dict[str, Path] = {}
    for stage in stages:
        out_dir = folder / stage.name
        out_dir.mkdir(parents=True)
        stage_input = StageInput(
            job_id="sheet",
            stage=stage.name,
            attempt=1,
            prompt=prompt,
            seed=seed,
            quality="standard",
            formats=("glb",),
            parameters={},
            inputs=dict(inputs),
            out_dir=out_dir,
        )
        outputs[stage.name] = stage.run(stage_input, SilentContext())
        inputs |= {artefact.role: artefact.path for artefact in outputs[stage.name].artefacts}
    return outputs


def _tile(picture: Path, caption: str, size: int) -> Image.Image:
    tile = Image.open(picture).convert("RGB").resize((size, size), Image.Resampling.LANCZOS)
    if caption:
        ImageDraw.Draw(tile).text((6, size - 16), caption, fill=(70, 70, 70))
    return tile


def make_sheet(prompts: Sequence[str], seeds: int, size: int, columns: int) -> Image.Image:
    """One picture with `columns` prompts a band, their seeds below each other."""
    stages = [load_stage("assembly", name) for name in STAGES]
    bands = -(-len(prompts) // columns)
    sheet = Image.new("RGB", (columns * size, bands * seeds * size), (246, 246, 246))
    for index, prompt in enumerate(prompts):
        for seed in range(seeds):
            started = time.monotonic()
            with tempfile.TemporaryDirectory(prefix="meshyard-sheet-") as folder:
                outputs = run_chain(stages, prompt, seed, Path(folder))
                tile = _tile(Path(folder) / "texture" / "preview.png", prompt if seed == 0 else "", size)
            place = (index % columns * size, (index // columns * seeds + seed) * size)
            sheet.paste(tile, place)
            log.info(
                "tile_done",
                index=index,
                seed=seed,
                seconds=round(time.monotonic() - started, 2),
                confidence=outputs["generate"].figures["confidence"],
                method=outputs["retopology"].figures["method"],
            )
    return sheet


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m inference.training.sheet", description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--size", type=int, default=256, help="pixels along a picture's edge")
    parser.add_argument("--columns", type=int, default=6)
    parser.add_argument("prompts", nargs="*", default=list(PROMPTS))
    arguments = parser.parse_args()
    sheet = make_sheet(arguments.prompts, arguments.seeds, arguments.size, arguments.columns)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(arguments.out, optimize=True)
    log.info("sheet_written", path=str(arguments.out), pixels=np.prod(sheet.size).item())


if __name__ == "__main__":
    main()
