"""The application: routes and the layers around them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response

from gateway.middleware.authentication import AuthenticationMiddleware
from gateway.middleware.context import REQUEST_ID, ContextMiddleware
from gateway.middleware.limits import LimitsMiddleware
from gateway.problems import Problem
from gateway.registry import RegistryView
from gateway.routes import assets, events, health, jobs, load
from gateway.routes.registry import registry_routes
from gateway.services import Services
from schemas.registry import bundled


def create_app(services: Services) -> Starlette:
    """The ASGI application over these services; its lifespan starts and stops them.

    The lifespan does not wait for Kafka: the port answers at once, /readyz says what is missing. The registry is
    served only where the bundled ids are the truth.
    """

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await services.start()
        try:
            yield
        finally:
            await services.stop()

    routes = [*jobs.ROUTES, *events.ROUTES, *assets.ROUTES, *load.ROUTES, *health.ROUTES]
    if services.settings.kafka.registry_url is None:
        routes += registry_routes(RegistryView(bundled(), services.settings.kafka.every_domain))
    app = Starlette(
        routes=routes,
        middleware=[
            Middleware(ContextMiddleware, services.settings.access_log),
            Middleware(LimitsMiddleware),
            Middleware(AuthenticationMiddleware, services.tenants, services.clock),
        ],
        exception_handlers={HTTPException: _http_problem},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.state.services = services
    return app


def _http_problem(request: Request, error: Exception) -> Response:
    """What the router refuses, as a problem."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        problem = Problem("method_not_allowed", f"allowed: {allowed}", "use one of these", headers={"allow": allowed})
    else:
        problem = Problem("not_found", "no such resource", "check the path against docs/http-api.md")
    return problem.response(request.scope[REQUEST_ID])
