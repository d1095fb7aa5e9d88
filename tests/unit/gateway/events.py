"""Sets of events as writers promise them, and as a broken writer might send them."""

from collections.abc import Mapping

from hypothesis import strategies as st

from gateway.fold import StoredEvent, stored_event
from gateway.heads import HeadReader
from gateway.tables import FiledEvent
from schemas.codec import Codec, Record
from schemas.events import job_event
from schemas.jobs import Transition
from schemas.pipelines import PIPELINES
from schemas.registry import bundled

CODEC = Codec()
HEADS = HeadReader(bundled())
JOB = {
    "job_id": "5f1c2d1e-3b0a-4a58-9d55-6f5c6f0c1a2b",
    "user_id": "ada",
    "workflow": "text-to-3d",
    "pipeline_id": "assembly",
    "created_at": 1_000,
}
STAGES = tuple(spec.name for spec in PIPELINES["assembly"].stages)
_WITH_CLASS = (Transition.FAILED, Transition.REJECTED, Transition.ABORTED)
_BEFORE_QUEUED = (Transition.HELD, Transition.REJECTED)
_OF_STAGES = (Transition.STARTED, Transition.STAGE_SUCCEEDED, Transition.STAGE_FAILED, Transition.STAGE_LOST)


def record(
    transition: Transition,
    offset: int,
    *,
    stage_index: int | None = None,
    attempt: int = 0,
    job: Mapping[str, object] = JOB,
    **more: object,
) -> Record:
    """An event as its writer makes it."""
    made = job_event(
        job,
        transition,
        at=2_000 + offset,
        stage=None if stage_index is None else STAGES[stage_index],
        stage_index=stage_index or 0,
        stage_count=3,
        attempt=attempt,
        run_seconds=float(attempt) if stage_index is not None else None,
        error_class="transient" if transition in _WITH_CLASS else None,
        artefacts=[
            {
                "role": "mesh",
                "uri": f"file:///o/{offset}",
                "sha256": "0",
                "bytes": offset,
                "media_type": "model/ply",
            }
        ]
        if transition is Transition.STAGE_SUCCEEDED
        else [],
    )
    return {**made, **more}


def filed(made: Record, offset: int) -> FiledEvent:
    """An event as the feed hands it to the read model."""
    value = CODEC.encode("job_event", made)
    return FiledEvent(HEADS.read(value), value, 0, offset)


def stored(transition: Transition, offset: int, *, stage_index: int | None = None, attempt: int = 0) -> StoredEvent:
    """An event at a place in jobs.events, through the codec as in life."""
    value = CODEC.encode("job_event", record(transition, offset, stage_index=stage_index, attempt=attempt))
    return stored_event(CODEC.decode(value), 0, offset)


def refiled(event: StoredEvent) -> FiledEvent:
    """The record of an event that `stored` has made, as the feed hands it over."""
    index = None if event.stage is None else event.stage_index
    return filed(
        record(Transition(event.transition), event.offset, stage_index=index, attempt=event.attempt), event.offset
    )


@st.composite
def histories(draw: st.DrawFn) -> list[StoredEvent]:
    """Any events of one job in the order of jobs.events; some stand there twice."""
    kinds = draw(
        st.lists(
            st.one_of(
                st.tuples(st.sampled_from([t for t in Transition if t not in _OF_STAGES]), st.none(), st.just(0)),
                st.tuples(st.sampled_from(_BEFORE_QUEUED), st.none(), st.integers(0, 3)),
                st.tuples(st.sampled_from(_OF_STAGES), st.integers(0, 2), st.integers(1, 3)),
            ),
            max_size=14,
        )
    )
    return [
        stored(transition, offset, stage_index=stage_index, attempt=attempt)
        for offset, (transition, stage_index, attempt) in enumerate(kinds)
    ]


def whole_job() -> list[StoredEvent]:
    """The events of a job that succeeds, with one lost attempt."""
    return [
        stored(Transition.QUEUED, 0),
        stored(Transition.STARTED, 1, stage_index=0, attempt=1),
        stored(Transition.STAGE_LOST, 2, stage_index=0, attempt=1),
        stored(Transition.STARTED, 3, stage_index=0, attempt=2),
        stored(Transition.STAGE_SUCCEEDED, 4, stage_index=0, attempt=2),
        stored(Transition.STARTED, 5, stage_index=1, attempt=1),
        stored(Transition.STAGE_SUCCEEDED, 6, stage_index=1, attempt=1),
        stored(Transition.STARTED, 7, stage_index=2, attempt=1),
        stored(Transition.STAGE_SUCCEEDED, 8, stage_index=2, attempt=1),
        stored(Transition.SUCCEEDED, 9),
    ]
