"""API keys: `my_<key id, 8 hex digits>_<256 random bits, urlsafe>`; only the SHA-256 of the whole text is stored.

A slow hash is not needed: the key has 256 bits that no dictionary holds.
"""

import hashlib
import secrets
import time
from typing import Final

from schemas.codec import Record

PREFIX: Final = "my"
_SECRET_CHARACTERS: Final = 43
KEY_ID_DIGITS: Final = 8


def new_api_key() -> tuple[str, Record]:
    """A new key's text, to be shown once, and its record for the `keys` of a Tenant."""
    key_id = secrets.token_hex(KEY_ID_DIGITS // 2)
    text = f"{PREFIX}_{key_id}_{secrets.token_urlsafe(32)}"
    record: Record = {
        "key_id": key_id,
        "sha256": key_digest(text),
        "created_at": time.time_ns() // 1_000_000,
        "revoked_at": None,
    }
    return text, record


def key_digest(text: str) -> str:
    """Hex SHA-256 of a key's whole text."""
    return hashlib.sha256(text.encode()).hexdigest()


def key_id_of(text: str) -> str | None:
    """The public part of a key's text; None when the text has not the form of a key."""
    parts = text.split("_", 2)
    if len(parts) != 3 or parts[0] != PREFIX or len(parts[1]) != KEY_ID_DIGITS or not text.isascii():
        return None
    return parts[1] if len(parts[2]) == _SECRET_CHARACTERS else None
