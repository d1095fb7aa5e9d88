"""Lets nobody into /v1 without a valid key."""

from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.auth import TenantDirectory
from gateway.problems import unavailable
from streams.clock import Clock

PRINCIPAL: Final = "meshyard.principal"


class AuthenticationMiddleware:
    """Puts the Principal of a request under /v1 into its scope; everything else is public."""

    def __init__(self, app: ASGIApp, directory: TenantDirectory, clock: Clock) -> None:
        self._app = app
        self._directory = directory
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request. Raises Problem 401, or 503 while the keys are still being read."""
        path = scope.get("path", "")
        if scope["type"] == "http" and (path == "/v1" or path.startswith("/v1/")):
            if not self._directory.loaded:
                raise unavailable("starting", "the keys are still being read", retry_after_seconds=1)
            authorization = Headers(scope=scope).get("authorization")
            scope[PRINCIPAL] = self._directory.authenticate(authorization, self._clock.now_ms())
        await self._app(scope, receive, send)
