"""Bodies and headers of POST /v1/jobs: what is accepted, and errors that name the field and the remedy.

Nothing that a user wrote is repeated in a message, names of unknown fields aside.
"""

import json
import re
from datetime import datetime, timedelta
from typing import Annotated, Final, Literal, NoReturn, TypeVar

import msgspec

from gateway.problems import Problem
from schemas.pipelines import IMAGE_TO_3D, PIPELINES, WORKFLOWS, Pipeline

MAX_BODY_BYTES: Final = 64 * 1024
MAX_PROMPT_CHARACTERS: Final = 2_000
MAX_PARAMETERS: Final = 32
MAX_IDEMPOTENCY_KEY_CHARACTERS: Final = 200
# Whole numbers up to here survive JSON readers that know doubles only.
MAX_SEED: Final = 2**53 - 1
FORMATS: Final = ("glb",)
TEXTURE_SIZES: Final = (512, 1024, 2048, 4096, 8192)
MAX_RUN_AT_DAYS: Final = 30
MAX_DEBOUNCE_SECONDS: Final = 24 * 3600.0
MAX_WITHIN_SECONDS: Final = 30 * 24 * 3600.0
MAX_QUEUE_DEPTH: Final = 2**31 - 1
_DAY_MS: Final = 24 * 3_600_000

_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
_Value = Annotated[str, msgspec.Meta(max_length=256)]


_Priority = Annotated[int, msgspec.Meta(ge=1, le=5)]
_Within = Annotated[float, msgspec.Meta(gt=0, le=MAX_WITHIN_SECONDS)]


class Debounce(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A newer request of the user with the same key, within so many seconds, takes the place of this one."""

    key: _Text
    seconds: Annotated[float, msgspec.Meta(gt=0, le=MAX_DEBOUNCE_SECONDS)]


class JobBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a user asks for.

    workflow: for example text-to-3d; prompt: the text to make a model of; pipeline_id: the pipeline that serves it;
    seed: of every random choice, derived from the job id when absent; parameters: further ones of the pipeline; lane:
    class of urgency, by quality when absent; priority: among the user's own jobs, 1 first; run_at: ISO 8601, not
    before that time; on_limit: over the rate limit, refused or held; *_within_seconds: from when it was accepted or
    released; max_queue_depth: refused when more tasks wait.
    """

    workflow: str
    prompt: Annotated[str, msgspec.Meta(max_length=MAX_PROMPT_CHARACTERS)] | None = None
    pipeline_id: str | None = None
    model_version: _Text | None = None
    seed: Annotated[int, msgspec.Meta(ge=0, le=MAX_SEED)] | None = None
    quality: Literal["draft", "standard", "high"] = "standard"
    formats: Annotated[list[str], msgspec.Meta(min_length=1, max_length=8)] = msgspec.field(
        default_factory=lambda: list(FORMATS)
    )
    parameters: Annotated[dict[_Text, _Value], msgspec.Meta(max_length=MAX_PARAMETERS)] = {}
    job_type: Literal["model"] = "model"
    lane: Literal["interactive", "standard", "batch"] | None = None
    priority: _Priority = 3
    texture_size: int | None = None
    run_at: str | None = None
    on_limit: Literal["reject", "wait"] = "reject"
    debounce: Debounce | None = None
    start_within_seconds: _Within | None = None
    finish_within_seconds: _Within | None = None
    max_queue_depth: Annotated[int, msgspec.Meta(ge=0, le=MAX_QUEUE_DEPTH)] | None = None


class ChangeBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a user wants changed of a job that waits or runs; None leaves it as it is."""

    priority: _Priority | None = None
    paused: bool | None = None


class CancelBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why a user cancels."""

    reason: Annotated[str, msgspec.Meta(max_length=200)] = ""


_Body = TypeVar("_Body", bound=msgspec.Struct)

_REMEDIES: Final[dict[str, str]] = {
    "workflow": f"give one of: {', '.join(WORKFLOWS)}",
    "prompt": f"give 1 to {MAX_PROMPT_CHARACTERS:,} characters of text in one line",
    "pipeline_id": f"give one of: {', '.join(PIPELINES)}; or leave it out",
    "model_version": "give a version's name of 1 to 64 characters; or leave it out",
    "seed": f"give a whole number from 0 to {MAX_SEED}; or leave it out",
    "quality": "give one of: draft, standard, high",
    "formats": 'give ["glb"]: no other format is offered yet',
    "parameters": f"give at most {MAX_PARAMETERS} texts of at most 256 characters under names of 1 to 64",
    "job_type": "give model; or leave it out",
    "lane": "give one of: interactive, standard, batch; or leave it out",
    "priority": "give a whole number from 1 (first) to 5",
    "texture_size": f"give one of: {', '.join(map(str, TEXTURE_SIZES))}; or leave it out",
    "run_at": f"give a time with its zone, like 2030-01-31T12:00:00Z, at most {MAX_RUN_AT_DAYS} days ahead",
    "on_limit": "give one of: reject, wait",
    "debounce": 'give {"key": "...", "seconds": ...}; or leave it out',
    "debounce.key": "give a text of 1 to 64 characters",
    "debounce.seconds": f"give a number of seconds above 0, at most {MAX_DEBOUNCE_SECONDS:.0f}",
    "start_within_seconds": f"give a number of seconds above 0, at most {MAX_WITHIN_SECONDS:.0f}; or leave it out",
    "finish_within_seconds": f"give a number of seconds above 0, at most {MAX_WITHIN_SECONDS:.0f}; or leave it out",
    "max_queue_depth": f"give a whole number from 0 to {MAX_QUEUE_DEPTH}; or leave it out",
    "paused": "give true or false",
    "reason": "give a text of at most 200 characters; or leave it out",
}
_CONTROL = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u2028\\u2029\\ud800-\\udfff]")
_PATH = re.compile(r" - at .*`\$\.([a-z_]+(?:\.[a-z_]+)?)")
_RUN_AT = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d([.,]\d{1,9})?)?(Z|[+-]\d\d:?\d\d)\Z", re.ASCII)
_EPOCH: Final = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
_UNKNOWN = re.compile(r"unknown field `(.*)`", re.DOTALL)


def parse_job(data: bytes) -> tuple[JobBody, Pipeline]:
    """The request in a body, and the pipeline that serves it. Raises Problem."""
    raw = _parse_json(data)
    if isinstance(raw, dict) and raw.get("workflow") == IMAGE_TO_3D:
        raise Problem(
            "not_offered",
            f"workflow {IMAGE_TO_3D} is not yet offered",
            _REMEDIES["workflow"],
            field="workflow",
        )
    body = _convert(raw, JobBody)
    if body.workflow not in WORKFLOWS:
        _refuse("workflow", "the workflow is unknown")
    pipeline = PIPELINES.get(body.pipeline_id or WORKFLOWS[body.workflow])
    if pipeline is None or pipeline.workflow != body.workflow:
        _refuse("pipeline_id", "the workflow has no such pipeline")
    if body.prompt is None or not body.prompt.strip():
        if pipeline.needs_prompt or body.prompt is not None:
            _refuse("prompt", "the prompt is empty" if body.prompt is not None else "the prompt is missing")
    else:
        _check_text("prompt", body.prompt)
    if any(name not in FORMATS for name in body.formats):
        _refuse("formats", "a format is unknown")
    if body.model_version is not None:
        _check_text("model_version", body.model_version)
        if body.model_version not in pipeline.model_versions:
            _refuse("model_version", "the pipeline has no such version")
    for name, value in body.parameters.items():
        _check_text("parameters", name)
        _check_text("parameters", value)
    if body.texture_size is not None and body.texture_size not in TEXTURE_SIZES:
        _refuse("texture_size", "the texture has no such size")
    if body.debounce is not None:
        _check_text("debounce.key", body.debounce.key)
    return body, pipeline


def run_at_ms(text: str | None, now_ms: int) -> int | None:
    """`run_at` in ms since 1970, None where there is none; a time that has passed means now. Raises Problem."""
    if text is None:
        return None
    try:
        # Python reads more spellings than clients agree on: only dates with `-`, a time of day and a zone are taken.
        at = datetime.fromisoformat(text) if _RUN_AT.match(text) else None
        passed = None if at is None else at - _EPOCH
    except (ValueError, OverflowError):
        passed = None
    if passed is None:
        _refuse("run_at", "the time is not valid")
    found = passed // timedelta(milliseconds=1)
    if found > now_ms + MAX_RUN_AT_DAYS * _DAY_MS:
        _refuse("run_at", "the time is too far ahead")
    return max(found, 0)


def parse_change(data: bytes) -> ChangeBody:
    """The body of PATCH /v1/jobs/{job_id}. Raises Problem."""
    body = _convert(_parse_json(data), ChangeBody)
    if body.priority is None and body.paused is None:
        raise Problem("invalid_request", "the body changes nothing", "give priority, paused or both", field="priority")
    return body


def parse_cancel(data: bytes) -> CancelBody:
    """The optional body of a cancel. Raises Problem."""
    if not data.strip():
        return CancelBody()
    body = _convert(_parse_json(data), CancelBody)
    _check_text("reason", body.reason)
    return body


def idempotency_key(values: list[str]) -> str | None:
    """The key in the Idempotency-Key headers, quotes of the structured form taken off. Raises Problem."""
    if not values:
        return None
    remedy = f"send one header with 1 to {MAX_IDEMPOTENCY_KEY_CHARACTERS} visible ASCII characters"
    text = values[0].strip()
    if len(text) >= 2 and text[0] == text[-1] == '"':
        text = text[1:-1]
    fits = 1 <= len(text) <= MAX_IDEMPOTENCY_KEY_CHARACTERS and all("\x20" <= c <= "\x7e" for c in text)
    if len(values) > 1 or not fits:
        raise Problem("invalid_header", "the Idempotency-Key is not valid", remedy, field="Idempotency-Key")
    return text


def _parse_json(data: bytes) -> object:
    """JSON without what readers disagree on: duplicate names, NaN, Infinity, lone surrogates."""
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_object, parse_constant=_constant)
    except _DuplicateName as error:
        raise Problem(
            "invalid_json", "a name stands twice in one object", "send each field once", field=error.name
        ) from None
    except RecursionError:
        raise Problem("invalid_json", "the body is nested too deeply", "send one flat object") from None
    except ValueError as error:  # not UTF-8, not JSON, a number of thousands of digits
        where = f" at byte {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        raise Problem("invalid_json", f"the body cannot be read{where}", "send one JSON object in UTF-8") from None


class _DuplicateName(Exception):
    """A name stands twice in a JSON object."""

    def __init__(self, name: str) -> None:
        self.name = _shown(name)
        super().__init__(self.name)


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise _DuplicateName(name)
            seen.add(name)
    return found


def _constant(text: str) -> NoReturn:
    raise ValueError(text)


def _convert(raw: object, kind: type[_Body]) -> _Body:
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        message = str(error)
        place = _PATH.search(message)
        inside = place[1] if place is not None else ""
        unknown = _UNKNOWN.search(message[: place.start()] if place is not None else message)
        if unknown is not None:
            known = Debounce if inside == "debounce" else kind
            fields = ", ".join(known.__struct_fields__)
            name = _shown(unknown[1]) if known is kind else f"{inside}.{_shown(unknown[1])}"
            raise Problem("invalid_request", "the field is unknown", f"known fields: {fields}", field=name) from None
        missing = re.search(r"missing required field `(\w+)`", message)
        if missing is not None:
            _refuse(f"{inside}.{missing[1]}" if inside else missing[1], "the field is missing")
        if inside.partition(".")[0] in _REMEDIES:
            _refuse(inside if inside in _REMEDIES else inside.partition(".")[0], "the value has a wrong type or size")
        raise Problem("invalid_request", "the body is no object", "send one JSON object") from None


def _refuse(field: str, detail: str) -> NoReturn:
    raise Problem("invalid_request", detail, _REMEDIES[field], field=field)


def _check_text(field: str, text: str) -> None:
    if _CONTROL.search(text) is not None:
        _refuse(field, f"{field} holds a control character, a line break or half a surrogate pair")


def _shown(name: str) -> str:
    return name[:64].encode("unicode_escape").decode()
