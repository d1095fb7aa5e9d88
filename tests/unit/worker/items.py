"""Work items for tests."""

from typing import Any

from inference.work import WorkItem, work_item
from schemas.codec import Codec, Record
from schemas.events import dispatch_id

CODEC = Codec()
# Fields of a work item that stand in its request.
WISHES = ("prompt", "seed", "formats", "parameters")


def request(job_id: str = "job-1", **wishes: Any) -> bytes:
    """A JobRequested record as it travels; `wishes`: prompt, seed, formats, parameters."""
    record = {
        "request_id": f"r-{job_id}",
        "job_id": job_id,
        "user_id": "user-1",
        "job_type": "model",
        "created_at": 1_000,
        "workflow": "text-to-3d",
        "pipeline_id": "synthetic",
        "prompt": None,
        "seed": 7,
        "quality": "draft",
        "formats": ["glb"],
        "parameters": {},
        **wishes,
    }
    return CODEC.encode("job_requested", record)


def item_record(job_id: str = "job-1", stage: str = "generate", attempt: int = 1, **fields: Any) -> Record:
    """A WorkItem as it is decoded; what stands in the request (`WISHES`) goes there."""
    wishes = {name: fields.pop(name) for name in WISHES if name in fields}
    return {
        "dispatch_id": dispatch_id(job_id, stage, attempt),
        "job_id": job_id,
        "user_id": "user-1",
        "stage": stage,
        "stage_index": ("generate", "retopology", "texture").index(stage),
        "stage_count": 3,
        "attempt": attempt,
        "max_attempts": 3,
        "pipeline_id": "synthetic",
        "model_version": None,
        "quality": "draft",
        "artefacts": [],
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "created_at": 1_000,
        "ready_at": 2_000,
        "dispatched_at": 3_000,
        **({} if "request" in fields else {"request": request(job_id, **wishes)}),
        **fields,
    }


def item(job_id: str = "job-1", stage: str = "generate", attempt: int = 1, **fields: Any) -> WorkItem:
    """A WorkItem as the worker holds it."""
    return work_item(item_record(job_id, stage, attempt, **fields))


def batch(*items: Record, epoch: int = 5, slot: int = 0, cancel: tuple[Record, ...] = ()) -> Record:
    """A WorkBatch as it is decoded."""
    controls = [{"kind": "cancel", "job_id": i["job_id"], "stage": i["stage"], "attempt": i["attempt"]} for i in cancel]
    return {"slot": slot, "epoch": epoch, "items": list(items), "controls": controls}
