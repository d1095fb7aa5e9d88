"""Files between the object store and a stage: inputs fetched and verified, results stored with their manifest."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
from obstore.exceptions import BaseError

from inference.channel import MadeArtefact
from inference.work import Artefact, WorkItem
from streams.objects import ObjectMissing, ObjectStore

SMALL_BYTES: Final = 256 * 1024  # such files are read once and stored in one call
_BLOCK_BYTES: Final = 256 * 1024


class ArtefactError(Exception):
    """A file could not be fetched or stored; error_class as the retry policy knows it."""

    def __init__(self, error_class: str, message: str) -> None:
        self.error_class = error_class
        self.message = message
        super().__init__(message)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where one run finds copies of its inputs and leaves its results; real paths, both folders are empty."""

    inputs: Path
    results: Path


class Scratch:
    """A slot's private folder: a place for each run at the same time, emptied after the run and used again.

    Making and removing folders for each run cost more than the rest of a short run.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        shutil.rmtree(root, ignore_errors=True)  # a killed predecessor's
        self._home = self._open()

    def renew(self) -> None:
        """Places with names never used: what an older child of this slot, even another worker's, may still write
        does not meet the next run. Places in use are no more."""
        shutil.rmtree(self._home, ignore_errors=True)
        self._home = self._open()

    def take(self) -> Place:
        """A free place. Raises OSError."""
        if self._free:
            return self._free.pop()
        self._made += 1
        place = Place(inputs=self._home / f"in-{self._made}", results=self._home / f"out-{self._made}")
        place.inputs.mkdir()
        place.results.mkdir()
        return place

    def give_back(self, place: Place, *, used: bool = True) -> None:
        """Removes a run's files; its place is free. used: whether there may be any."""
        if place.inputs.parent != self._home:
            return  # of a time before `renew`
        try:
            if used:
                _empty(place.inputs)
                _empty(place.results)
        except FileNotFoundError:  # a newer life of the slot has removed it
            return
        self._free.append(place)

    def close(self) -> None:
        """Removes everything of its own; a successor's folders stay."""
        shutil.rmtree(self._home, ignore_errors=True)
        try:
            self._root.rmdir()
        except OSError:
            pass

    def _open(self) -> Path:
        self._root.mkdir(parents=True, exist_ok=True)
        self._free: list[Place] = []
        self._made = 0
        return Path(tempfile.mkdtemp(dir=self._root)).resolve()


def _empty(folder: Path) -> None:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                os.unlink(entry.path)


def fetch_inputs(store: ObjectStore, artefacts: Sequence[Artefact], folder: Path) -> dict[str, Path]:
    """The newest artefact of each role as a local file, checked by size and SHA-256. Raises ArtefactError.

    Of a store that is a local directory it is the stored file itself, of others a copy in `folder`.
    """
    newest = {artefact.role: artefact for artefact in artefacts}
    return {role: _fetch(store, artefact, folder / f"{n}") for n, (role, artefact) in enumerate(newest.items())}


def store_results(
    store: ObjectStore,
    item: WorkItem,
    made: Sequence[MadeArtefact],
    figures: Mapping[str, float | str | bool],
    out_dir: Path,
) -> tuple[Artefact, ...]:
    """Stores the files, then the manifest that names them. `out_dir` is a real path. Raises ArtefactError.

    A stage that made no file leaves no manifest: its event says all there is to say. An attempt's objects are its own:
    no other attempt writes to their keys, and nobody learns them before its end.
    """
    if not made:
        return ()
    prefix = f"{item.job_id}/{item.stage}/{item.attempt}"
    stored = []
    try:
        for file in made:
            if file.data is None and not os.path.realpath(file.path).startswith(f"{out_dir}/"):
                raise ArtefactError("crash", f"stage {item.stage} named a file outside its folder")
            stored.append(_store(store, prefix, file))
        manifest = {
            "job_id": item.job_id,
            "stage": item.stage,
            "attempt": item.attempt,
            "inputs": [artefact.record() for artefact in item.artefacts],
            "artefacts": [artefact.record() for artefact in stored],
            "figures": dict(figures),
        }
        store.put(f"{prefix}/manifest.json", msgspec.json.encode(manifest), new=True)
    except ValueError as error:
        raise ArtefactError("invalid", "the job's id makes no name for objects") from error
    except FileNotFoundError as error:
        raise ArtefactError("crash", f"stage {item.stage} named a file that it did not write") from error
    except (OSError, BaseError) as error:
        raise ArtefactError("transient", "the object store took no files; the attempt is repeated") from error
    return tuple(stored)


def _store(store: ObjectStore, prefix: str, file: MadeArtefact) -> Artefact:
    data = file.data
    if data is None:
        path = Path(file.path)
        if path.stat().st_size > SMALL_BYTES:
            kept = store.put_file(prefix, path, file.media_type)
            return Artefact(
                role=file.role, uri=kept.uri, sha256=kept.sha256, bytes=kept.bytes, media_type=kept.media_type
            )
        data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    uri = store.put(f"{prefix}/{digest}", data, new=True)
    return Artefact(role=file.role, uri=uri, sha256=digest, bytes=len(data), media_type=file.media_type)


def _fetch(store: ObjectStore, artefact: Artefact, path: Path) -> Path:
    try:
        found = store.local_path(artefact.uri)
        size, digest = _look_at(found) if found is not None else _copy(store, artefact, path)
    except ValueError as error:  # ForeignUri, or a path that is none
        raise ArtefactError("invalid", f"artefact {artefact.role} is foreign to this object store") from error
    except (ObjectMissing, FileNotFoundError) as error:
        raise ArtefactError("transient", f"artefact {artefact.role} of an earlier stage is missing") from error
    except (OSError, BaseError) as error:
        raise ArtefactError("transient", "the object store did not answer; the attempt is repeated") from error
    if size != artefact.bytes or digest != artefact.sha256:
        raise ArtefactError("transient", f"artefact {artefact.role} of an earlier stage arrived damaged")
    return found or path


def _look_at(path: Path) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    with open(path, "rb", buffering=0) as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            size += len(block)
    return size, digest.hexdigest()


def _copy(store: ObjectStore, artefact: Artefact, path: Path) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    _, chunks = store.stream(store.key_of(artefact.uri))
    with path.open("wb") as out:
        for chunk in chunks:
            digest.update(chunk)
            size += len(chunk)
            out.write(chunk)
    return size, digest.hexdigest()
