"""Sends assets out of the object store, piece by piece."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Final

import structlog
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from gateway.problems import Problem
from streams.objects import ForeignUri, ObjectMissing, ObjectStore

log = structlog.get_logger(__name__)

_MEDIA_TYPE: Final = re.compile(r"[a-z]+/[a-z0-9.+-]+\Z")
_CHUNK_BYTES: Final = 256 * 1024
_OPEN_SECONDS: Final = 20.0


async def asset_response(
    store: ObjectStore, name: str, artefact: Mapping[str, Any], if_none_match: str | None
) -> Response:
    """The asset's bytes as a download that no browser interprets. Raises Problem."""
    etag = f'"{artefact["sha256"]}"'
    headers = {
        "etag": etag,
        "cache-control": "private, max-age=3600, immutable",
        "x-content-type-options": "nosniff",
        "content-security-policy": "default-src 'none'; sandbox",
        "content-disposition": f'attachment; filename="{_file_name(name, artefact)}"',
    }
    if if_none_match is not None and etag in if_none_match:
        return Response(status_code=304, headers=headers)
    try:
        async with asyncio.timeout(_OPEN_SECONDS):
            size, chunks = await run_in_threadpool(store.stream, store.key_of(artefact["uri"]), _CHUNK_BYTES)
    except ObjectMissing:
        raise Problem("asset_gone", "the asset is no longer stored", "make the job again") from None
    except (ForeignUri, OSError, TimeoutError) as error:
        log.warning("asset unreachable", error=type(error).__name__)
        raise Problem("asset_unreachable", "the object store did not give the asset", "try again later") from None
    headers["content-length"] = str(size)
    return StreamingResponse(_pieces(chunks), headers=headers, media_type=_media_type(artefact))


async def _pieces(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    while (chunk := await run_in_threadpool(next, chunks, None)) is not None:
        yield chunk


def _media_type(artefact: Mapping[str, Any]) -> str:
    found = str(artefact["media_type"])
    return found if _MEDIA_TYPE.match(found) else "application/octet-stream"


def _file_name(name: str, artefact: Mapping[str, Any]) -> str:
    """`model.glb` as it is; `generate/preview` as `generate-preview` with the ending of its type."""
    if "/" not in name:
        return name
    plain = "".join(c if (c.isalnum() and c.isascii()) or c in "-_." else "-" for c in name)
    ending = {"image/png": ".png", "model/gltf-binary": ".glb", "application/json": ".json"}
    return plain + ending.get(artefact["media_type"], "")
