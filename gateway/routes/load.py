"""/v1/load: how busy the service is, and how long a new job would wait."""

from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.problems import unavailable
from gateway.routes.jobs import json_response, principal_of
from gateway.services import services_of


async def get_load(request: Request) -> Response:
    """GET: load level, what it does, and for each lane what a job of this user would have to expect."""
    services = services_of(request.app.state)
    principal = principal_of(request)
    found = services.load.summary(principal.user_id, principal.tier, services.clock.now_ms())
    if found is None:
        raise unavailable("starting", "the scheduler has said nothing yet")
    return json_response(found, 200, {"cache-control": "no-store"})


ROUTES: Final = [Route("/v1/load", get_load, methods=["GET"])]
