"""Errors as a user sees them: application/problem+json after RFC 9457, with code, retryable, suggestion, request_id."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec
from starlette.responses import Response

MEDIA_TYPE: Final = "application/problem+json"


@dataclass(frozen=True, kw_only=True)
class ProblemKind:
    """One kind of error. retryable: whether the same request may pass later."""

    status: int
    title: str
    retryable: bool = False


# Published: clients may switch on these codes.
KINDS: Final[dict[str, ProblemKind]] = {
    "invalid_json": ProblemKind(status=400, title="The body is not valid JSON"),
    "invalid_header": ProblemKind(status=400, title="A header is not valid"),
    "invalid_parameter": ProblemKind(status=400, title="A query parameter is not valid"),
    "missing_key": ProblemKind(status=401, title="An API key is needed"),
    "invalid_key": ProblemKind(status=401, title="The API key is not valid"),
    "forbidden": ProblemKind(status=403, title="The key may not do this"),
    "not_found": ProblemKind(status=404, title="There is no such resource"),
    "method_not_allowed": ProblemKind(status=405, title="The resource does not know this method"),
    "request_timeout": ProblemKind(status=408, title="The body came too slowly", retryable=True),
    "job_ended": ProblemKind(status=409, title="The job has ended"),
    "asset_gone": ProblemKind(status=410, title="The asset is no longer stored"),
    "body_too_large": ProblemKind(status=413, title="The body is too large"),
    "unsupported_media_type": ProblemKind(status=415, title="The body's type is not supported"),
    "range_not_satisfiable": ProblemKind(status=416, title="The asset has no such bytes"),
    "invalid_request": ProblemKind(status=422, title="The request is not valid"),
    "not_offered": ProblemKind(status=422, title="This is not yet offered"),
    "idempotency_conflict": ProblemKind(status=422, title="The Idempotency-Key belongs to another request"),
    "rate_limit": ProblemKind(status=429, title="Too many requests", retryable=True),
    "backlog_limit": ProblemKind(status=429, title="Too many of the user's jobs are under way", retryable=True),
    "queue_depth": ProblemKind(status=429, title="More tasks wait than the request allows", retryable=True),
    "too_many_streams": ProblemKind(status=429, title="Too many open event streams", retryable=True),
    "too_many_headers": ProblemKind(status=431, title="The request has too many headers"),
    "internal": ProblemKind(status=500, title="The gateway failed", retryable=True),
    "asset_unreachable": ProblemKind(status=502, title="The object store did not give the asset", retryable=True),
    "starting": ProblemKind(status=503, title="The gateway is starting", retryable=True),
    "overloaded": ProblemKind(status=503, title="There is more work than can be done at present", retryable=True),
    "broker_unavailable": ProblemKind(status=503, title="The request could not be stored", retryable=True),
}


class Problem(Exception):
    """A request cannot be served; carries what the user is told.

    field: which field, header or parameter is wrong; limit: which limit refuses; detail: what is wrong; suggestion:
    the remedy. None of them repeats what the user sent beyond names of fields.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        suggestion: str,
        *,
        field: str | None = None,
        limit: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.kind = KINDS[code]
        self.code = code
        self.detail = detail
        self.suggestion = suggestion
        self.field = field
        self.limit = limit
        self.headers = dict(headers or {})
        super().__init__(f"{code}: {detail}")

    def body(self, request_id: str) -> dict[str, object]:
        """The members of the problem document."""
        members: dict[str, object] = {
            "type": f"urn:meshyard:problem:{self.code}",
            "title": self.kind.title,
            "status": self.kind.status,
            "detail": self.detail,
            "code": self.code,
            "retryable": self.kind.retryable,
            "suggestion": self.suggestion,
            "request_id": request_id,
        }
        if self.field is not None:
            members["field"] = self.field
        if self.limit is not None:
            members["limit"] = self.limit
        return members

    def response(self, request_id: str) -> Response:
        """The problem as an HTTP response."""
        return Response(
            msgspec.json.encode(self.body(request_id)),
            status_code=self.kind.status,
            headers=self.headers,
            media_type=MEDIA_TYPE,
        )


def not_found() -> Problem:
    """The same answer for what does not exist and for what is another user's."""
    return Problem("not_found", "no such resource for this key", "check the id and which key you use")


def unavailable(code: str, detail: str, *, retry_after_seconds: int = 2, limit: str | None = None) -> Problem:
    """A 503 with the time after which to try again."""
    return Problem(
        code,
        detail,
        "repeat the request after the time in Retry-After, with the same Idempotency-Key",
        limit=limit,
        headers={"retry-after": str(retry_after_seconds)},
    )
