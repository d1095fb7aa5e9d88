"""/v1/jobs/{job_id}/assets: what a job has made."""

from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.assets import asset_response
from gateway.fold import fold
from gateway.jobs import assets
from gateway.problems import not_found
from gateway.routes.jobs import job_key, json_response
from gateway.services import services_of


async def list_assets(request: Request) -> Response:
    """GET: names, sizes and links."""
    job = await services_of(request.app.state).job(job_key(request))
    return json_response({"assets": job["assets"]}, 200, {"cache-control": "no-store"})


async def get_asset(request: Request) -> Response:
    """GET: the bytes."""
    services = services_of(request.app.state)
    stored = await services.stored_job(job_key(request))
    name = request.path_params["name"]
    artefact = assets(fold(stored.events), stored.row.pipeline_id).get(name)
    if artefact is None:
        raise not_found()
    return await asset_response(services.objects, name, artefact, request.headers)


ROUTES: Final = [
    Route("/v1/jobs/{job_id}/assets", list_assets, methods=["GET"]),
    Route("/v1/jobs/{job_id}/assets/{name:path}", get_asset, methods=["GET"]),
]
