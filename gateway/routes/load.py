"""/v1/load: how busy the service is, and how long a new job would wait."""

from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.problems import unavailable
from gateway.routes.jobs import bad_parameter, json_response, principal_of
from gateway.services import services_of
from schemas.pipelines import PIPELINES, TEXT_TO_3D, WORKFLOWS


async def get_load(request: Request) -> Response:
    """GET: load level, what it does, and for each lane what a job of this user would have to expect; of the domain
    that schedules a pipeline."""
    services = services_of(request.app.state)
    principal = principal_of(request)
    for name in request.query_params:
        if name != "pipeline_id":
            raise bad_parameter(name[:64].encode("unicode_escape").decode(), "known parameters: pipeline_id")
    pipeline_id = request.query_params.get("pipeline_id", WORKFLOWS[TEXT_TO_3D])
    if pipeline_id not in PIPELINES:
        raise bad_parameter("pipeline_id", f"give one of: {', '.join(PIPELINES)}; or leave it out")
    found = services.loads.of(pipeline_id).summary(principal.user_id, principal.tier, services.clock.now_ms())
    if found is None:
        raise unavailable("starting", "the scheduler has said nothing yet")
    return json_response(found, 200, {"cache-control": "no-store"})


ROUTES: Final = [Route("/v1/load", get_load, methods=["GET"])]
