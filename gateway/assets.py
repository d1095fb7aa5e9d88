"""Sends assets out of the object store, piece by piece."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Final

import structlog
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.responses import Response, StreamingResponse

from gateway.problems import Problem
from streams.objects import ForeignUri, ObjectMissing, ObjectStore

log = structlog.get_logger(__name__)

_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})\Z", re.ASCII)
_MEDIA_TYPE: Final = re.compile(r"[a-z]+/[a-z0-9.+-]+\Z")
_CHUNK_BYTES: Final = 256 * 1024
_OPEN_SECONDS: Final = 20.0


def span_of(header: str | None, size: int) -> tuple[int, int] | None:
    """The bytes that a Range header asks for, from the first to before the second (RFC 9110, section 14.2).

    None where it asks for nothing that has to be granted: no header, several ranges, another unit. Raises Problem for
    a range outside the asset.
    """
    found = _RANGE.match(header.strip()) if header is not None else None
    if found is None or found[0] == "bytes=-":
        return None
    first, last = found[1], found[2]
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < start:
            return None
    if start >= size or end <= start:
        raise Problem(
            "range_not_satisfiable",
            f"the asset has {size} bytes",
            "ask for bytes within it, or for all of it",
            field="Range",
            headers={"content-range": f"bytes */{size}"},
        )
    return start, end


async def asset_response(store: ObjectStore, name: str, artefact: Mapping[str, Any], asked: Headers) -> Response:
    """The asset's bytes as a download that no browser interprets; asked: the request's headers. Raises Problem."""
    etag = f'"{artefact["sha256"]}"'
    headers = {
        "etag": etag,
        "accept-ranges": "bytes",
        "cache-control": "private, max-age=3600, immutable",
        "x-content-type-options": "nosniff",
        "content-security-policy": "default-src 'none'; sandbox",
        "content-disposition": f'attachment; filename="{_file_name(name, artefact)}"',
    }
    if etag in asked.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    size = artefact["bytes"]
    # A range of what the client had of another asset is of no use to it.
    span = span_of(asked.get("range"), size) if asked.get("if-range", etag) == etag else None
    try:
        async with asyncio.timeout(_OPEN_SECONDS):
            whole, chunks = await run_in_threadpool(
                store.stream, store.key_of(artefact["uri"]), _CHUNK_BYTES, span=span
            )
    except ObjectMissing:
        raise Problem("asset_gone", "the asset is no longer stored", "make the job again") from None
    except (ForeignUri, OSError, TimeoutError) as error:
        log.warning("asset unreachable", error=type(error).__name__)
        raise Problem("asset_unreachable", "the object store did not give the asset", "try again later") from None
    if span is None:
        headers["content-length"] = str(whole)
        return StreamingResponse(_pieces(chunks), headers=headers, media_type=_media_type(artefact))
    headers["content-length"] = str(span[1] - span[0])
    headers["content-range"] = f"bytes {span[0]}-{span[1] - 1}/{size}"
    return StreamingResponse(_pieces(chunks), 206, headers, _media_type(artefact))


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
