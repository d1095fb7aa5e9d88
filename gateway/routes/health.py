"""/healthz: the process lives. /readyz: it accepts requests and they will be worked on."""

from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.routes.jobs import json_response
from gateway.services import services_of


async def healthz(request: Request) -> Response:
    """GET: 200 as long as the loop turns and the feed has not failed."""
    failed = services_of(request.app.state).failed is not None
    return json_response({"status": "failed" if failed else "ok"}, 503 if failed else 200)


async def readyz(request: Request) -> Response:
    """GET: 200, or 503 with what is missing.

    A control.load of the last seconds has come through the broker, so it vouches for broker and scheduler at once.
    """
    missing = services_of(request.app.state).missing()
    headers = {"cache-control": "no-store"}
    if missing:
        headers["retry-after"] = "1"
    return json_response({"ready": not missing, "missing": missing}, 503 if missing else 200, headers)


ROUTES: Final = [Route("/healthz", healthz, methods=["GET"]), Route("/readyz", readyz, methods=["GET"])]
