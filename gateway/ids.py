"""Names that the gateway gives: job ids, derived seeds, signatures, trace contexts."""

import hashlib
import hmac
import re
import secrets
import uuid

_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}\Z")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")

SIGNATURE_HEADER = "meshyard-signature"


def job_id(server_key: bytes, user_id: str, idempotency_key: str | None) -> str:
    """The job that a request makes: the same for the same user and key, whichever gateway is asked; random without
    a key. Derived ids are UUIDs of version 8 (RFC 9562: the content is the maker's business)."""
    if idempotency_key is None:
        return str(uuid.uuid4())
    digest = bytearray(hmac.digest(server_key, f"{user_id}\0{idempotency_key}".encode(), "sha256")[:16])
    digest[6] = (digest[6] & 0x0F) | 0x80
    digest[8] = (digest[8] & 0x3F) | 0x80
    return str(uuid.UUID(bytes=bytes(digest)))


def is_job_id(text: str) -> bool:
    """Whether a text has the form of a job id: a UUID in lower case."""
    return _UUID.match(text) is not None


def derived_seed(of_job_id: str) -> int:
    """A seed from 0 to 2^32 - 1 that a repeated request has again."""
    return int.from_bytes(hashlib.sha256(of_job_id.encode()).digest()[:4], "big")


def signature(server_key: bytes, value: bytes) -> bytes:
    """The `meshyard-signature` header of a record that this gateway vouches for."""
    return b"gateway:" + hmac.digest(server_key, value, "sha256").hex().encode()


def traceparent(header: str | None) -> str:
    """The caller's W3C trace context, or a new one when there is none or it is malformed."""
    if header is not None and _TRACEPARENT.match(header):
        return header
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"
