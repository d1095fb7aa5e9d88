"""What an attempt needs around it: its request read, its inputs fetched, a place for its files, its results stored."""

from dataclasses import dataclass

import structlog

from inference.artefacts import ArtefactError, Place, Scratch, fetch_inputs, store_results
from inference.channel import Done, Run
from inference.outcome import Ending, Failed, Succeeded
from inference.settings import WorkerSettings
from inference.work import RequestUnreadable, WorkItem, read_request
from schemas.codec import Codec
from streams.objects import ObjectStore

log = structlog.get_logger(__name__)


@dataclass(kw_only=True)
class Attempt:
    """An attempt in hand. Times are monotonic seconds, started_at ms since 1970.

    used: whether there may be files in its place. began: since when the slot is held for it; None while it waits for
    its turn or ends before anybody asks. kill_at: set by a cancel.
    """

    item: WorkItem
    run: Run
    place: Place
    handed_at: float
    used: bool = True
    began: float | None = None
    started_at: int | None = None
    kill_at: float | None = None


class Workplace:
    """Owns the slot's scratch folder."""

    def __init__(self, settings: WorkerSettings, store: ObjectStore, codec: Codec) -> None:
        self._store = store
        self._codec = codec
        self._scratch = Scratch(settings.data_dir / "scratch" / f"slot-{settings.slot}")

    def prepare(self, item: WorkItem, run_id: int, now: float) -> Attempt | Failed:
        """Makes an item ready to be handed to the child; how it ended if it cannot even begin."""
        place: Place | None = None
        try:
            wish = read_request(self._codec, item)
            place = self._scratch.take()
            files = fetch_inputs(self._store, item.artefacts, place.inputs) if item.artefacts else {}
        except RequestUnreadable as error:
            return Failed(error_class="invalid", message=f"the request cannot be read: {error.detail}")
        except ArtefactError as error:
            if place is not None:
                self._scratch.give_back(place)
            return Failed(error_class=error.error_class, message=error.message)
        except OSError:
            log.exception("scratch_failed")
            return Failed(error_class="transient", message="the slot's disk took no files")
        run = Run(
            run_id=run_id,
            pipeline_id=item.pipeline_id,
            job_id=item.job_id,
            stage=item.stage,
            attempt=item.attempt,
            prompt=wish.prompt,
            seed=wish.seed,
            quality=item.quality,
            formats=wish.formats,
            parameters=wish.parameters,
            inputs={role: str(path) for role, path in files.items()},
            out_dir=str(place.results),
            model_version=item.model_version,
            texture_size=item.texture_size,
        )
        return Attempt(item=item, run=run, place=place, handed_at=now)

    def keep(self, attempt: Attempt, done: Done) -> Ending:
        """Stores what a finished run made."""
        try:
            made = store_results(self._store, attempt.item, done.artefacts, done.figures, attempt.place.results)
        except ArtefactError as error:
            log.warning("results_not_stored", dispatch_id=attempt.item.dispatch_id, exc_info=True)
            return Failed(error_class=error.error_class, message=error.message)
        copies = str(attempt.place.inputs)
        attempt.used = any(artefact.data is None for artefact in done.artefacts) or any(
            path.startswith(copies) for path in attempt.run.inputs.values()
        )
        return Succeeded(artefacts=made)

    def clear(self, attempt: Attempt) -> None:
        """Removes an attempt's files."""
        self._scratch.give_back(attempt.place, used=attempt.used)

    def renew(self) -> None:
        """Other folders for a new child; see Scratch."""
        self._scratch.renew()

    def close(self) -> None:
        """Removes every file of its own."""
        self._scratch.close()
