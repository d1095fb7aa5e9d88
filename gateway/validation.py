"""Bodies and headers of POST /v1/jobs: what is accepted, and errors that name the field and the remedy.

Nothing that a user wrote is repeated in a message, names of unknown fields aside.
"""

import json
import re
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

_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
_Value = Annotated[str, msgspec.Meta(max_length=256)]


class JobBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a user asks for.

    workflow: for example text-to-3d; prompt: the text to make a model of; pipeline_id: the pipeline that serves it;
    seed: of every random choice, derived from the job id when absent; parameters: further ones of the pipeline.
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
    "reason": "give a text of at most 200 characters; or leave it out",
}
_CONTROL = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u2028\\u2029\\ud800-\\udfff]")
_PATH = re.compile(r" - at .*`\$\.([a-z_]+)")
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
    return body, pipeline


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
        unknown = _UNKNOWN.search(message)
        if unknown is not None:
            fields = ", ".join(kind.__struct_fields__)
            name = _shown(unknown[1])
            raise Problem("invalid_request", "the field is unknown", f"known fields: {fields}", field=name) from None
        missing = re.search(r"missing required field `(\w+)`", message)
        if missing is not None:
            _refuse(missing[1], "the field is missing")
        place = _PATH.search(message)
        if place is not None and place[1] in _REMEDIES:
            _refuse(place[1], "the value has a wrong type or size")
        raise Problem("invalid_request", "the body is no object", "send one JSON object") from None


def _refuse(field: str, detail: str) -> NoReturn:
    raise Problem("invalid_request", detail, _REMEDIES[field], field=field)


def _check_text(field: str, text: str) -> None:
    if _CONTROL.search(text) is not None:
        _refuse(field, f"{field} holds a control character, a line break or half a surrogate pair")


def _shown(name: str) -> str:
    return name[:64].encode("unicode_escape").decode()
