"""The outermost layer: names the request, turns errors into problems, writes the access line."""

import time
import uuid
from typing import Final

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.problems import Problem

log = structlog.get_logger(__name__)

REQUEST_ID: Final = "meshyard.request_id"


class ContextMiddleware:
    """Gives each request an id (`x-request-id` of its answer) and each error a problem document.

    Log lines name method, route, status and ids; never bodies, headers or query strings.
    """

    def __init__(self, app: ASGIApp, access_log: bool) -> None:
        self._app = app
        self._access_log = access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = str(uuid.uuid4())
        scope[REQUEST_ID] = request_id
        id_header = (b"x-request-id", request_id.encode())
        status = 0
        begin = time.perf_counter()

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), id_header]
            await send(message)

        try:
            await self._app(scope, receive, send_named)
        except Problem as problem:
            await problem.response(request_id)(scope, receive, send_named)
        except Exception:
            log.exception("request failed", request_id=request_id, method=scope["method"], route=_route(scope))
            if status:
                raise  # half an answer is out: the server closes the connection
            internal = Problem(
                "internal",
                "the gateway failed on this request",
                "try again; if it stays, report the request_id",
            )
            await internal.response(request_id)(scope, receive, send_named)
        finally:
            if self._access_log:
                log.info(
                    "request",
                    request_id=request_id,
                    method=scope["method"],
                    route=_route(scope),
                    status=status,
                    ms=round((time.perf_counter() - begin) * 1000, 2),
                )


def _route(scope: Scope) -> str:
    """The route's pattern rather than the path: paths hold ids."""
    route = scope.get("route")
    return str(getattr(route, "path", "")) or "unmatched"
