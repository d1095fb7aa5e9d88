"""/registry: the bundled schemas, as a Confluent schema registry serves them. Public: schemas are no secret."""

from collections.abc import Callable
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.bodies import read_body
from gateway.registry import RegistryProblem, RegistryView
from gateway.validation import MAX_BODY_BYTES

MEDIA_TYPE: Final = "application/vnd.schemaregistry.v1+json"


def registry_routes(view: RegistryView) -> list[Route]:
    """The routes; errors have Confluent's form, not problem+json, because its clients read them."""

    async def subjects(_: Request) -> Response:
        return _answer(view.subjects)

    async def versions(request: Request) -> Response:
        return _answer(lambda: view.versions(request.path_params["subject"]))

    async def version(request: Request) -> Response:
        return _answer(lambda: view.version(request.path_params["subject"], request.path_params["version"]))

    async def by_id(request: Request) -> Response:
        return _answer(lambda: view.by_id(request.path_params["schema_id"]))

    async def lookup(request: Request) -> Response:
        body = await _schema_body(request)
        return _answer(lambda: view.lookup(request.path_params["subject"], body))

    async def register(request: Request) -> Response:
        body = await _schema_body(request)
        return _answer(lambda: view.register(request.path_params["subject"], body))

    subject = "/registry/subjects/{subject}"
    return [
        Route("/registry/subjects", subjects, methods=["GET"]),
        Route(subject, lookup, methods=["POST"]),
        Route(f"{subject}/versions", versions, methods=["GET"]),
        Route(f"{subject}/versions", register, methods=["POST"]),
        Route(f"{subject}/versions/{{version}}", version, methods=["GET"]),
        Route("/registry/schemas/ids/{schema_id}", by_id, methods=["GET"]),
    ]


async def _schema_body(request: Request) -> object:
    """The request's JSON value, None when it is none: the view says what is wrong then."""
    body = await read_body(request, MAX_BODY_BYTES, media_type=MEDIA_TYPE)
    try:
        value: object = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return None
    return value


def _answer(call: Callable[[], object]) -> Response:
    try:
        return _response(call(), 200)
    except RegistryProblem as problem:
        return _response({"error_code": problem.code, "message": problem.message}, problem.status)


def _response(value: object, status: int) -> Response:
    return Response(msgspec.json.encode(value), status, media_type=MEDIA_TYPE)
