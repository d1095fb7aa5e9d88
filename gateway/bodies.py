"""Reads a request's body within limits of size and time."""

import asyncio
from typing import Final

from starlette.requests import ClientDisconnect, Request

from gateway.problems import Problem

READ_SECONDS: Final = 10.0
_JSON: Final = "application/json"


async def read_body(request: Request, limit_bytes: int, *, media_type: str = _JSON) -> bytes:
    """The whole body. Raises Problem when it is too large, too slow, compressed or no JSON by its type.

    media_type: one that means JSON too.
    """
    kind = request.headers.get("content-type", _JSON).partition(";")[0].strip().lower()
    is_json = kind in (_JSON, media_type)
    if not is_json or request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(
            "unsupported_media_type",
            "the body has to be plain JSON",
            "send content-type application/json and no content-encoding",
            field="content-encoding" if is_json else "content-type",
        )
    declared = request.headers.get("content-length", "0")
    if len(declared) > 12 or (declared.isdigit() and int(declared) > limit_bytes):
        raise _too_large(limit_bytes)
    body = bytearray()
    try:
        async with asyncio.timeout(READ_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit_bytes:
                    raise _too_large(limit_bytes)
    except TimeoutError:
        raise Problem(
            "request_timeout",
            f"the body did not come within {READ_SECONDS:.0f} s",
            "send it faster",
            headers={"connection": "close"},
        ) from None
    except ClientDisconnect:
        raise Problem("invalid_json", "the body ended early", "send the whole body") from None
    return bytes(body)


def _too_large(limit_bytes: int) -> Problem:
    return Problem(
        "body_too_large",
        f"the limit is {limit_bytes} bytes",
        "send a smaller body",
        headers={"connection": "close"},
    )
