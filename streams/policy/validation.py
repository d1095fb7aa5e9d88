"""Is a request well-formed? Each fault names the field and the remedy."""

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from schemas.pipelines import PIPELINES, WORKFLOWS, Pipeline

MAX_REQUEST_BYTES: Final = 64 * 1024
MAX_PROMPT_CHARACTERS: Final = 2_000
MAX_PARAMETERS: Final = 32
MAX_PARAMETER_CHARACTERS: Final = 1_000
MAX_DEBOUNCE_KEY_CHARACTERS: Final = 200
MAX_DEBOUNCE_SECONDS: Final = 24 * 3_600
MAX_AHEAD_DAYS: Final = 30
MAX_AHEAD_MS: Final = MAX_AHEAD_DAYS * 24 * 3_600_000
OFFERED_FORMATS: Final = frozenset({"glb"})
TEXTURE_SIZES: Final = (512, 1024, 2048, 4096, 8192)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sender:
    """What is known of where a request came from.

    key: the record's key; size_bytes: of its value; at_ms: its append time; operator: it may repeat dead jobs, because
    the topic is trusted or a gateway signed it; owns: whether the user has a job of that id.
    """

    key: str | None
    size_bytes: int
    at_ms: int
    operator: bool
    owns: Callable[[str], bool]


def fault(request: Mapping[str, Any], workflow: str, sender: Sender) -> str | None:
    """What is wrong with a request: `field: what; remedy`. None if nothing."""
    if sender.key != request["user_id"]:
        return "user_id: differs from the record's key; write the user_id as the key"
    if sender.size_bytes > MAX_REQUEST_BYTES:
        return f"request: has {sender.size_bytes} bytes; {MAX_REQUEST_BYTES} at most"
    try:
        uuid.UUID(request["job_id"])
    except ValueError:
        return "job_id: is no UUID; give a random one"
    if request["workflow"] != workflow or workflow not in WORKFLOWS:
        return f"workflow: {request['workflow']!r} does not belong on requests.{workflow}"
    pipeline = PIPELINES.get(request["pipeline_id"])
    if pipeline is None or pipeline.workflow != workflow:
        offered = ", ".join(p.pipeline_id for p in PIPELINES.values() if p.workflow == workflow)
        return f"pipeline_id: {request['pipeline_id']!r} does not serve {workflow}; offered: {offered}"
    return (
        _content_fault(request, pipeline) or _order_fault(request, sender) or _repeat_fault(request, pipeline, sender)
    )


def _content_fault(request: Mapping[str, Any], pipeline: Pipeline) -> str | None:
    """Of what shall be made."""
    version = request["model_version"]
    if version is not None and version not in pipeline.model_versions:
        return f"model_version: {version!r} is not known; offered: {', '.join(pipeline.model_versions)}"
    prompt = request["prompt"]
    if pipeline.needs_prompt and not (prompt and prompt.strip()):
        return "prompt: is empty; say what to make"
    if prompt is not None and len(prompt) > MAX_PROMPT_CHARACTERS:
        return f"prompt: has {len(prompt)} characters; {MAX_PROMPT_CHARACTERS} at most"
    formats = request["formats"]
    if not formats or not OFFERED_FORMATS.issuperset(formats):
        unknown = ", ".join(sorted(set(formats) - OFFERED_FORMATS)) or "none given"
        return f"formats: {unknown}; offered: {', '.join(sorted(OFFERED_FORMATS))}"
    size = request["texture_size"]
    if size is not None and size not in TEXTURE_SIZES:
        return f"texture_size: {size} is not offered; give {', '.join(map(str, TEXTURE_SIZES))}"
    parameters = request["parameters"]
    if len(parameters) > MAX_PARAMETERS:
        return f"parameters: {len(parameters)} of them; {MAX_PARAMETERS} at most"
    for name, value in parameters.items():
        if len(name) > MAX_PARAMETER_CHARACTERS or len(value) > MAX_PARAMETER_CHARACTERS:
            return f"parameters: {name[:40]!r} is longer than {MAX_PARAMETER_CHARACTERS} characters"
    return None


def _order_fault(request: Mapping[str, Any], sender: Sender) -> str | None:
    """Of when and in which order."""
    if not 1 <= request["priority"] <= 5:
        return f"priority: {request['priority']} is not offered; give 1 (first) to 5"
    run_at = request["run_at"]
    if run_at is not None and run_at > sender.at_ms + MAX_AHEAD_MS:
        return f"run_at: lies more than {MAX_AHEAD_DAYS} days ahead; give an earlier time"
    key, seconds = request["debounce_key"], request["debounce_seconds"]
    if (key is None) != (seconds is None):
        missing = "debounce_key" if key is None else "debounce_seconds"
        return f"{missing}: is missing; give debounce_key and debounce_seconds, or neither"
    if key is not None and not 1 <= len(key) <= MAX_DEBOUNCE_KEY_CHARACTERS:
        return f"debounce_key: has {len(key)} characters; give 1 to {MAX_DEBOUNCE_KEY_CHARACTERS}"
    if seconds is not None and not 0 < seconds <= MAX_DEBOUNCE_SECONDS:
        return f"debounce_seconds: {seconds:g} is not offered; give more than 0 and {MAX_DEBOUNCE_SECONDS} at most"
    for name in ("start_within_seconds", "finish_within_seconds"):
        within = request[name]
        if within is not None and not 0 < within <= MAX_AHEAD_MS / 1000:
            return f"{name}: {within:g} is not offered; give more than 0 and {MAX_AHEAD_DAYS} days at most"
    depth = request["max_queue_depth"]
    if depth is not None and depth < 0:
        return f"max_queue_depth: {depth} is negative; give 0 or more"
    return None


def _repeat_fault(request: Mapping[str, Any], pipeline: Pipeline, sender: Sender) -> str | None:
    """Of repeating a dead job, which only operators may ask for."""
    of, resume = request["retry_of"], request["resume"]
    if of is None and resume is None:
        return None
    if not sender.operator:
        return f"{'retry_of' if of is not None else 'resume'}: only operators may repeat jobs; leave it out"
    if of is None:
        return "retry_of: is missing; name the job whose stages `resume` uses"
    try:
        uuid.UUID(of)
    except ValueError:
        return "retry_of: is no UUID; give the dead job's id"
    if resume is None:
        return None
    if resume["stage"] not in [stage.name for stage in pipeline.stages]:
        return f"resume: {resume['stage']!r} is no stage of {pipeline.pipeline_id}"
    for artefact in resume["artefacts"]:
        parts = artefact["uri"].split("/")
        # A job that was repeated before has stages of its forebears.
        if ".." in parts or not any(part == of or sender.owns(part) for part in parts):
            return f"resume: {artefact['uri'][:200]!r} belongs to no job of this user; name artefacts of {of}"
    return None
