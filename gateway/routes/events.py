"""/v1/jobs/{job_id}/events: a job's events as they come."""

from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from gateway.routes.jobs import job_key, principal_of
from gateway.services import services_of
from gateway.sse import EventStream, ended, parse_last_event_id


async def job_events(request: Request) -> ASGIApp:
    """GET; 204 tells an EventSource that has seen everything not to come back."""
    services = services_of(request.app.state)
    job = job_key(request)
    last = parse_last_event_id(request.headers.get("last-event-id"))
    stored = await services.stored_job(job)
    if last is not None and ended(stored, last):
        return Response(status_code=204)
    if request.method == "HEAD":  # there is no end to wait for
        return Response(media_type="text/event-stream")
    return EventStream(services, principal_of(request), job[1], last)


ROUTES: Final = [Route("/v1/jobs/{job_id}/events", job_events, methods=["GET"])]
