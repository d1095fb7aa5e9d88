"""A job as users see it: one JSON object, the same in answers, lists and event streams."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from gateway.fold import JobFold, StageView
from gateway.problems import Problem
from gateway.tables import JobRow, lane_of
from schemas.codec import Record
from schemas.eta import Predicted
from schemas.jobs import JobState
from schemas.pipelines import PIPELINES

JobJson = dict[str, Any]

# What the last stage's roles are called as files; everything else is `<stage>/<role>`.
_FILES: Final = {"glb": "model.glb", "preview": "preview.png"}


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What is true of a job now, beside its events.

    progress: its newest JobProgress; priority, paused: as the user's newest commands have them; queue_position, eta:
    while it is queued, as of now_ms (ms since 1970).
    """

    progress: Record | None = None
    priority: int | None = None
    paused: bool | None = None
    queue_position: int | None = None
    eta: Predicted | None = None
    now_ms: int = 0


_NOTHING: Final = Standing()


def job_json(row: JobRow, folded: JobFold, standing: Standing = _NOTHING) -> JobJson:
    """The job object."""
    base = f"/v1/jobs/{row.job_id}"
    running, queued = folded.state is JobState.RUNNING, folded.state is JobState.QUEUED
    progress = standing.progress
    return {
        "id": row.job_id,
        "state": folded.state.value,
        "stage": folded.stage,
        "attempt": folded.attempt,
        "progress": _percent(row, folded, progress),
        "message": progress["message"] if progress is not None and running else None,
        "workflow": row.workflow,
        "pipeline_id": row.pipeline_id,
        "lane": folded.lane or row.lane,
        "tier": folded.tier,
        "priority": standing.priority or folded.priority or row.priority,
        "paused": bool(standing.paused) and not folded.terminal,
        "created_at": iso(row.created_at),
        "held_until": iso(folded.held_until),
        "queued_at": iso(folded.queued_at),
        "started_at": iso(folded.started_at),
        "retry_at": iso(folded.retry_at),
        "finished_at": iso(folded.finished_at),
        "stages": _stages(row, folded),
        "queue_position": standing.queue_position if queued else None,
        "eta": eta_json(standing.eta, standing.now_ms) if queued else None,
        "adjustments": list(folded.adjustments),
        "retry_of": folded.retry_of or row.retry_of,
        "assets": [
            {
                "name": name,
                "role": artefact["role"],
                "bytes": artefact["bytes"],
                "media_type": artefact["media_type"],
                "url": f"{base}/assets/{name}",
            }
            for name, artefact in assets(folded, row.pipeline_id).items()
        ],
        "error": {"class": folded.error_class, "message": folded.error_message} if folded.failed else None,
        "urls": {
            "self": base,
            "events": f"{base}/events",
            "cancel": f"{base}/cancel",
            "assets": f"{base}/assets",
        },
    }


def eta_json(predicted: Predicted | None, now_ms: int) -> JobJson | None:
    """Bounds that half and nine of ten jobs keep: of the wait, of the time to the end, and as times of day."""
    if predicted is None:
        return None
    waits, totals = (predicted.p50, predicted.p90), (predicted.total_p50, predicted.total_p90)
    return {
        "wait_seconds": _bounds(*(round(seconds, 1) for seconds in waits)),
        "total_seconds": _bounds(*(round(seconds, 1) for seconds in totals)),
        "start_at": _bounds(*(iso(now_ms + round(seconds * 1000)) for seconds in waits)),
        "finish_at": _bounds(*(iso(now_ms + round(seconds * 1000)) for seconds in totals)),
    }


def _bounds(p50: float | str | None, p90: float | str | None) -> JobJson:
    return {"p50": p50, "p90": p90}


def request_row(record: Record) -> JobRow:
    """The row of a request that the read model has not read yet."""
    return JobRow(
        user_id=record["user_id"],
        job_id=record["job_id"],
        workflow=record["workflow"],
        pipeline_id=record["pipeline_id"],
        created_at=record["created_at"],
        state=JobState.SUBMITTED.value,
        queued_at=None,
        lane=lane_of(record),
        priority=record["priority"],
        retry_of=record["retry_of"],
    )


def assets(folded: JobFold, pipeline_id: str) -> dict[str, Mapping[str, Any]]:
    """The job's artefacts by their file names, those of the result first."""
    order = _stage_names(pipeline_id, folded)
    latest: dict[str, Mapping[str, Any]] = {}
    by_stage: dict[str, Mapping[str, Any]] = {}
    for (stage, role), artefact in sorted(folded.artefacts.items(), key=lambda item: _place(order, item[0][0])):
        by_stage[f"{stage}/{role}"] = artefact
        if role in _FILES:
            latest[_FILES[role]] = artefact
    return {name: latest[name] for name in _FILES.values() if name in latest} | by_stage


def iso(at_ms: int | None) -> str | None:
    """ISO 8601 in UTC with milliseconds; None for no time, and for one that no calendar has."""
    if at_ms is None:
        return None
    try:
        return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (OverflowError, ValueError, OSError):
        return None


def cursor_of(row: JobRow) -> str:
    """The `cursor` with which a list goes on after this job."""
    return base64.urlsafe_b64encode(f"{row.created_at}.{row.job_id}".encode()).decode().rstrip("=")


def parse_cursor(text: str) -> tuple[int, str]:
    """created_at and job_id of a cursor. Raises Problem."""
    try:
        created_at, _, job_id = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode("ascii").partition(".")
        if not -(2**62) < int(created_at) < 2**62:
            raise ValueError(created_at)
        return int(created_at), job_id
    except (ValueError, binascii.Error):
        raise Problem(
            "invalid_parameter",
            "the cursor is not valid",
            "use `next_cursor` of the last answer",
            field="cursor",
        ) from None


def _stage_names(pipeline_id: str, folded: JobFold) -> list[str]:
    pipeline = PIPELINES.get(pipeline_id)
    known = [spec.name for spec in pipeline.stages] if pipeline else []
    return known + [name for name in folded.stages if name not in known]


def _place(order: list[str], stage: str) -> int:
    return order.index(stage) if stage in order else len(order)


def _stages(row: JobRow, folded: JobFold) -> list[JobJson]:
    pending = StageView(name="", state="pending", attempt=0, wait_seconds=None, run_seconds=None, gpu_seconds=None)
    found = []
    for name in _stage_names(row.pipeline_id, folded):
        stage = folded.stages.get(name, pending)
        # A slot that was lost or killed by a cancel says nothing more; the job's end does.
        state = folded.state.value if folded.terminal and stage.state == "running" else stage.state
        found.append(
            {
                "name": name,
                "state": state,
                "attempt": stage.attempt,
                "wait_seconds": stage.wait_seconds,
                "run_seconds": stage.run_seconds,
                "gpu_seconds": stage.gpu_seconds,
            }
        )
    return found


def _percent(row: JobRow, folded: JobFold, progress: Record | None) -> float:
    """0 to 100: the shares of finished stages, or the running stage's own word where that is more."""
    if folded.state is JobState.SUCCEEDED:
        return 100.0
    pipeline = PIPELINES.get(row.pipeline_id)
    done = 0.0
    for spec in pipeline.stages if pipeline else ():
        stage = folded.stages.get(spec.name)
        if stage is not None and stage.state == "succeeded":
            done += 100 * spec.share
    if progress is not None and folded.state is JobState.RUNNING:
        done = max(done, min(100.0, max(0.0, progress["percent"])))
    return round(done, 1)
