"""Walks an Avro body and checks what fastavro lets pass: indexes that name nothing, ints and longs out of range.

Only for bodies that strangers wrote and whose re-encoding differs, or whose schema has ints (schemas.codec): it is
pure Python, ten times slower than a decode.
Source: Apache Avro 1.12 specification, "Binary encoding".
"""

from collections.abc import Mapping
from typing import Any

from schemas.errors import IndexOutOfRange, InvalidField, TrailingBytes, TruncatedMessage

_FIXED_BYTES = {"null": 0, "boolean": 1, "float": 4, "double": 8}


class _Cursor:
    """A position in the body, and the named types seen so far."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.at = 0
        self.named: dict[str, Any] = {}

    def skip(self, count: int) -> None:
        if count < 0 or self.at + count > len(self.body):
            raise TruncatedMessage(f"at byte {self.at}")
        self.at += count

    def long(self) -> int:
        """The next zigzag varint; 10 bytes and 64 bits at most."""
        start = self.at
        value = shift = 0
        for _ in range(10):
            if self.at >= len(self.body):
                raise TruncatedMessage(f"varint at byte {start}")
            byte = self.body[self.at]
            self.at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80 and value < 1 << 64:
                return (value >> 1) ^ -(value & 1)
        raise InvalidField(f"the varint at byte {start} has more than 64 bits")

    def int32(self) -> None:
        """The next varint, which must have 32 bits."""
        start = self.at
        if not -(1 << 31) <= self.long() < 1 << 31:
            raise InvalidField(f"the int at byte {start} has more than 32 bits")

    def index(self, count: int, what: str) -> int:
        index = self.long()
        if not 0 <= index < count:
            raise IndexOutOfRange(f"{what}: {index} of {count}")
        return index


def flat_ints(schema: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Names of a record's own fields that are ints or nullable ints; None when ints lie deeper than that."""
    flat = tuple(f["name"] for f in schema["fields"] if f["type"] == "int" or f["type"] == ["null", "int"])
    return None if any(_names_int(f["type"]) for f in schema["fields"] if f["name"] not in flat) else flat


def _names_int(schema: Any) -> bool:
    if isinstance(schema, list):
        return any(_names_int(branch) for branch in schema)
    if not isinstance(schema, dict):
        return bool(schema == "int")
    parts = [schema.get("type"), schema.get("items"), schema.get("values")]
    parts += [field["type"] for field in schema.get("fields", ())]
    return any(_names_int(part) for part in parts if part is not None)


def check_body(schema: Any, body: bytes) -> None:
    """Raises IndexOutOfRange, InvalidField, TruncatedMessage or TrailingBytes when `body` is no well-formed record."""
    cursor = _Cursor(body)
    _walk(schema, cursor)
    if cursor.at != len(body):
        raise TrailingBytes(f"{len(body) - cursor.at} of them")


def _walk(schema: Any, cursor: _Cursor) -> None:
    if isinstance(schema, list):
        _walk(schema[cursor.index(len(schema), "union")], cursor)
        return
    kind = schema["type"] if isinstance(schema, dict) else schema
    if isinstance(schema, dict) and "name" in schema:
        cursor.named[schema["name"]] = schema
    if kind in _FIXED_BYTES:
        cursor.skip(_FIXED_BYTES[kind])
    elif kind == "int":
        cursor.int32()
    elif kind == "long":
        cursor.long()
    elif kind in ("string", "bytes"):
        cursor.skip(cursor.long())
    elif kind == "enum":
        cursor.index(len(schema["symbols"]), schema["name"])
    elif kind == "record":
        for field in schema["fields"]:
            _walk(field["type"], cursor)
    elif kind in ("array", "map"):
        _walk_blocks(schema, kind, cursor)
    elif isinstance(kind, (dict, list)):
        _walk(kind, cursor)
    else:
        _walk(cursor.named[kind], cursor)


def _walk_blocks(schema: Any, kind: str, cursor: _Cursor) -> None:
    while count := cursor.long():
        if count < 0:  # a block that also tells its size
            count = -count
            cursor.long()
        for _ in range(count):
            if kind == "map":
                cursor.skip(cursor.long())
                _walk(schema["values"], cursor)
            else:
                _walk(schema["items"], cursor)
