"""Refuses requests that are too large before anything reads them."""

from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.problems import Problem

MAX_HEADERS: Final = 100
MAX_HEADER_BYTES: Final = 32 * 1024


class LimitsMiddleware:
    """At most 100 headers of 32 kB in all."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request. Raises Problem."""
        if scope["type"] == "http":
            headers = scope["headers"]
            if len(headers) > MAX_HEADERS or sum(len(k) + len(v) for k, v in headers) > MAX_HEADER_BYTES:
                raise Problem(
                    "too_many_headers",
                    f"the limit is {MAX_HEADERS} headers of {MAX_HEADER_BYTES // 1024} kB in all",
                    "send fewer headers",
                )
        await self._app(scope, receive, send)
