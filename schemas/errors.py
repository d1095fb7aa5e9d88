"""Errors of the wire format. Each carries data; its docstring's first line is its message.

One fate for all of them: the record goes to `jobs.dead` with `code` as the reason, and nobody waits for it.
"""

from typing import ClassVar


class CodecError(ValueError):
    """The bytes are no valid record."""

    code: ClassVar[str] = "undecodable"

    def __init__(self, detail: str = "", *, schema_id: int | None = None) -> None:
        self.detail = detail
        self.schema_id = schema_id
        first_line = (type(self).__doc__ or "").strip().splitlines()[0]
        super().__init__(f"{first_line} {detail}".strip())


class EmptyMessage(CodecError):
    """The record has no value."""

    code = "empty"


class MessageTooLarge(CodecError):
    """The record is over the size limit."""

    code = "too_large"


class WrongMagicByte(CodecError):
    """The first byte is not 0: the value is not in the Confluent wire format."""

    code = "wrong_magic_byte"


class UnknownSchemaId(CodecError):
    """No schema has this id."""

    code = "unknown_schema_id"


class UnexpectedSchema(CodecError):
    """The schema id is known, but records of that schema do not belong here."""

    code = "unexpected_schema"


class TruncatedMessage(CodecError):
    """The record ends before its last field."""

    code = "truncated"


class TrailingBytes(CodecError):
    """Bytes follow the record's last field."""

    code = "trailing_bytes"


class IndexOutOfRange(CodecError):
    """An enum or union index names nothing."""

    code = "index_out_of_range"


class InvalidField(CodecError):
    """A field's bytes are no value of its type."""

    code = "invalid_field"


class InvalidRecord(CodecError):
    """The record does not fit its schema."""

    code = "invalid_record"


class RegistryError(RuntimeError):
    """The schema registry cannot serve this schema."""

    def __init__(self, detail: str) -> None:
        self.detail = detail
        super().__init__(f"{(type(self).__doc__ or '').strip()} {detail}")
