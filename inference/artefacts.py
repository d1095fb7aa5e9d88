"""Files between the object store and a stage: inputs fetched and verified, results stored with their manifest."""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from obstore.exceptions import BaseError

from inference.channel import MadeArtefact
from inference.work import Artefact, WorkItem
from streams.objects import ForeignUri, ObjectMissing, ObjectStore


class ArtefactError(Exception):
    """A file could not be fetched or stored; error_class as the retry policy knows it."""

    def __init__(self, error_class: str, message: str) -> None:
        self.error_class = error_class
        self.message = message
        super().__init__(message)


class Scratch:
    """A slot's private folder; each attempt has a folder of its own in it and leaves nothing behind."""

    def __init__(self, root: Path) -> None:
        self._root = root
        shutil.rmtree(root, ignore_errors=True)  # a killed predecessor's
        root.mkdir(parents=True)

    def open(self, run_id: int) -> tuple[Path, Path]:
        """Fresh folders for inputs and results of a run."""
        inputs, results = self._root / str(run_id) / "in", self.results(run_id)
        inputs.parent.mkdir()
        inputs.mkdir()
        results.mkdir()
        return inputs, results

    def results(self, run_id: int) -> Path:
        """Where a run's stage writes."""
        return self._root / str(run_id) / "out"

    def drop(self, run_id: int) -> None:
        """Removes a run's folders; absent ones are no error."""
        shutil.rmtree(self._root / str(run_id), ignore_errors=True)

    def close(self) -> None:
        """Removes everything."""
        shutil.rmtree(self._root, ignore_errors=True)


def fetch_inputs(store: ObjectStore, artefacts: Sequence[Artefact], folder: Path) -> dict[str, Path]:
    """The newest artefact of each role as a local file, checked by size and SHA-256. Raises ArtefactError."""
    newest = {artefact.role: artefact for artefact in artefacts}
    return {role: _fetch(store, artefact, folder / f"{n}") for n, (role, artefact) in enumerate(newest.items())}


def store_results(
    store: ObjectStore,
    item: WorkItem,
    made: Sequence[MadeArtefact],
    figures: Mapping[str, float | str | bool],
    out_dir: Path,
) -> tuple[Artefact, ...]:
    """Stores the files, then the manifest that names them. Raises ArtefactError."""
    prefix = f"{item.job_id}/{item.stage}/{item.attempt}"
    stored = []
    try:
        for file in made:
            path = Path(file.path)
            if not path.resolve().is_relative_to(out_dir.resolve()):
                raise ArtefactError("crash", f"stage {item.stage} named a file outside its folder")
            kept = store.put_file(prefix, path, file.media_type)
            stored.append(
                Artefact(role=file.role, uri=kept.uri, sha256=kept.sha256, bytes=kept.bytes, media_type=kept.media_type)
            )
        manifest = {
            "job_id": item.job_id,
            "stage": item.stage,
            "attempt": item.attempt,
            "inputs": [artefact.record() for artefact in item.artefacts],
            "artefacts": [artefact.record() for artefact in stored],
            "figures": dict(figures),
        }
        store.put(f"{prefix}/manifest.json", json.dumps(manifest).encode())
    except FileNotFoundError as error:
        raise ArtefactError("crash", f"stage {item.stage} named a file that it did not write") from error
    except (OSError, BaseError) as error:
        raise ArtefactError("transient", "the object store took no files; the attempt is repeated") from error
    return tuple(stored)


def _fetch(store: ObjectStore, artefact: Artefact, path: Path) -> Path:
    digest, size = hashlib.sha256(), 0
    try:
        _, chunks = store.stream(store.key_of(artefact.uri))
        with path.open("wb") as out:
            for chunk in chunks:
                digest.update(chunk)
                size += len(chunk)
                out.write(chunk)
    except ForeignUri as error:
        raise ArtefactError("invalid", f"artefact {artefact.role} is foreign to this object store") from error
    except ObjectMissing as error:
        raise ArtefactError("transient", f"artefact {artefact.role} of an earlier stage is missing") from error
    except (OSError, BaseError) as error:
        raise ArtefactError("transient", "the object store did not answer; the attempt is repeated") from error
    if size != artefact.bytes or digest.hexdigest() != artefact.sha256:
        raise ArtefactError("transient", f"artefact {artefact.role} of an earlier stage arrived damaged")
    return path
