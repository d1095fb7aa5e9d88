"""Records to bytes and back: Confluent wire format (magic byte 0, 4-byte big-endian schema id, Avro body).

Functions made from the schemas do the work (schemas.compiled); whatever these do not know is fastavro's, its verdict
included.

Times stay integers (milliseconds since 1970): the logical type stands in the schema for other readers, but building
a datetime for each field cost half of a decode.

Records of older versions come out in the newest shape: Avro's schema resolution fills new fields with their defaults
and drops fields that are gone. Only such records pay for it.
"""

import io
import json
import struct
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, TypeVar, cast

import fastavro
from fastavro.schema import parse_schema

from schemas import errors
from schemas.compiled import NotCompilable, compile_reader, compile_writer
from schemas.compiled import Reader as CompiledReader
from schemas.compiled import Writer as CompiledWriter
from schemas.registry import Registry, bundled
from schemas.walk import check_body, flat_ints

MAX_MESSAGE_BYTES: Final = 256 * 1024
_HEADER: Final = struct.Struct(">bI")
_INT32: Final = range(-(1 << 31), 1 << 31)

Record = dict[str, Any]
_Made = TypeVar("_Made")


class _Reader(NamedTuple):
    """What a schema id stands for.

    write, read: made from the schema; None where that is not possible. newest: the schema of the newest version, None
    when this one is it. ints: names of the fields that hold 32-bit ints, None when some lie deeper; general codecs read
    ints as longs, so strict reading must look at them.
    """

    name: str
    schema: Any
    schema_id: int
    write: CompiledWriter | None
    read: CompiledReader | None
    newest: Any
    ints: tuple[str, ...] | None


class Codec:
    """Encodes and decodes records by name. One instance a process; it caches parsed schemas by id.

    encode(name, record) -> bytes: raises InvalidRecord when the record does not fit, MessageTooLarge over 256 kB.
    Members that the schema does not have are left out, nullable ones that are missing are null.
    decode(data, *names) -> record, in the shape of the newest version: raises one CodecError subclass for each way in
    which `data` can be wrong. decode_strict does the same for bytes that strangers wrote: indexes are range-checked
    as well, by the version that the bytes name.
    """

    def __init__(self, registry: Registry | None = None) -> None:
        self._registry = registry or bundled()
        self._writers: dict[str, tuple[bytes, Any, CompiledWriter | None]] = {}
        self._readers: dict[int, _Reader] = {}

    def encode(self, name: str, record: Mapping[str, Any]) -> bytes:
        """The record in the wire format, by the latest schema of that name."""
        data = self.encode_large(name, record)
        if len(data) > MAX_MESSAGE_BYTES:
            raise errors.MessageTooLarge(f"{name}: {len(data)} bytes, the limit is {MAX_MESSAGE_BYTES}")
        return data

    def encode_large(self, name: str, record: Mapping[str, Any]) -> bytes:
        """The same without the size limit: a dead letter holds a record that may itself be over it."""
        found = self._writers.get(name)
        if found is None:
            version = self._registry.latest(name)
            header, schema = _HEADER.pack(0, version.schema_id), _parse(version.text)
            found = self._writers[name] = header, schema, _compiled(compile_writer, schema)
        header, schema, write = found
        if write is not None:
            quick = _try_to_write(write, record, header)
            if quick is not None:
                return quick
        out = io.BytesIO()
        out.write(header)
        try:
            fastavro.schemaless_writer(out, schema, record)
        except Exception as error:  # fastavro raises five families of them; all mean the same here
            raise errors.InvalidRecord(f"{name}: {error!r}") from error
        return out.getvalue()

    def decode(self, data: bytes | None, *names: str) -> Record:
        """The record of a value that our own roles wrote. `names`: the schemas that may stand here; none means any."""
        record, reader, _ = self._decode(data, names)
        return record if reader.newest is None else _renew(reader, record)

    def decode_large(self, data: bytes | None, *names: str) -> Record:
        """The same without the size limit: what encode_large wrote."""
        record, reader, _ = self._decode(data, names, most_bytes=sys.maxsize)
        return record if reader.newest is None else _renew(reader, record)

    def decode_strict(self, data: bytes | None, *names: str) -> Record:
        """The record of a value that anybody may have written."""
        record, reader, is_checked = self._decode(data, names)
        assert data is not None
        if not is_checked and (_written(reader, record) != data[_HEADER.size :] or not _ints_fit(reader, record)):
            # Either a legal other spelling (blocks with sizes) or something that fastavro lets pass.
            _check(reader, data)
        return record if reader.newest is None else _renew(reader, record)

    def schema_id(self, data: bytes | None) -> int | None:
        """The schema id in a value's header, None if there is none: for dead letters."""
        if data is None or len(data) < _HEADER.size or data[0] != 0:
            return None
        return int(_HEADER.unpack_from(data)[1])

    def name_of(self, data: bytes) -> str:
        """Which record a value holds, without decoding its body."""
        return self._reader(data).name

    def _reader(self, data: bytes | None, most_bytes: int = MAX_MESSAGE_BYTES) -> _Reader:
        if not data:
            raise errors.EmptyMessage
        if len(data) > most_bytes:
            raise errors.MessageTooLarge(f"{len(data)} bytes, the limit is {most_bytes}")
        if data[0] != 0:
            raise errors.WrongMagicByte(f"it is {data[0]}")
        if len(data) < _HEADER.size:
            raise errors.TruncatedMessage("the header has 5 bytes")
        schema_id = int(_HEADER.unpack_from(data)[1])
        found = self._readers.get(schema_id)
        if found is None:
            version = self._registry.by_id(schema_id)
            if version is None:
                raise errors.UnknownSchemaId(f"{schema_id}", schema_id=schema_id)
            schema, newest = _parse(version.text), self._registry.newest(version.name)
            found = self._readers[schema_id] = _Reader(
                name=version.name,
                schema=schema,
                schema_id=schema_id,
                write=_compiled(compile_writer, schema),
                read=_compiled(compile_reader, schema),
                newest=None if newest.version == version.version else _parse(newest.text),
                ints=flat_ints(schema),
            )
        return found

    def _decode(
        self, data: bytes | None, names: tuple[str, ...], most_bytes: int = MAX_MESSAGE_BYTES
    ) -> tuple[Record, _Reader, bool]:
        """The record as written, its reader, and whether indexes and ranges have been looked at."""
        reader = self._reader(data, most_bytes)
        name, schema_id = reader.name, reader.schema_id
        if names and name not in names:
            raise errors.UnexpectedSchema(f"{name}; expected {' or '.join(names)}", schema_id=schema_id)
        assert data is not None
        if reader.read is not None:
            try:
                quick, end = reader.read(data, _HEADER.size)
            except Exception:  # not as usual, or wrong: fastavro says which, and what is wrong
                end = -1
            if end == len(data):
                return quick, reader, True
        body = io.BytesIO(data)
        body.seek(_HEADER.size)
        try:
            record: Any = fastavro.schemaless_reader(body, reader.schema, None)
        except EOFError as error:
            raise errors.TruncatedMessage(name, schema_id=schema_id) from error
        except IndexError as error:  # a bad index, or fastavro's way to say that a varint's bytes ended
            _check(reader, data)
            raise errors.IndexOutOfRange(name, schema_id=schema_id) from error
        except Exception as error:  # bad UTF-8, overflow, wrong lengths: one family for the caller
            raise errors.InvalidField(f"{name}: {error!r}", schema_id=schema_id) from error
        if body.tell() != len(data):
            raise errors.TrailingBytes(f"{name}: {len(data) - body.tell()} of them", schema_id=schema_id)
        return record, reader, False


def _compiled(make: Callable[[Any], _Made], schema: Any) -> _Made | None:
    try:
        return make(schema)
    except NotCompilable:
        return None


def _try_to_write(write: CompiledWriter, record: Mapping[str, Any], header: bytes = b"") -> bytes | None:
    """The record after the header; None when it is not as usual, or wrong: fastavro says which, and what is wrong."""
    out = bytearray(header)
    try:
        write(record, out)
    except Exception:
        return None
    return bytes(out)


def _written(reader: _Reader, record: Record) -> bytes:
    """The record's body, by the version that it was read by."""
    if reader.write is not None:
        quick = _try_to_write(reader.write, record)
        if quick is not None:
            return quick
    out = io.BytesIO()
    fastavro.schemaless_writer(out, reader.schema, record)
    return out.getvalue()


def _ints_fit(reader: _Reader, record: Mapping[str, Any]) -> bool:
    """Whether every int is known to have 32 bits. False also where nobody can say without a walk."""
    if reader.ints is None:
        return False
    return all((value := record[name]) is None or value in _INT32 for name in reader.ints)


def _renew(reader: _Reader, record: Record) -> Record:
    """The record in the shape of its newest version."""
    old, new = io.BytesIO(), io.BytesIO()
    fastavro.schemaless_writer(old, reader.schema, record)
    old.seek(0)
    resolved: Any = fastavro.schemaless_reader(old, reader.schema, reader.newest)
    # A default is one object for all records that fastavro fills with it; a second reading makes lists of their own.
    fastavro.schemaless_writer(new, reader.newest, resolved)
    new.seek(0)
    return cast(Record, fastavro.schemaless_reader(new, reader.newest, None))


def _check(reader: _Reader, data: bytes) -> None:
    """Walks the body; raises the CodecError that says what is wrong with it."""
    try:
        check_body(reader.schema, data[_HEADER.size :])
    except errors.CodecError as error:
        error.schema_id = reader.schema_id
        raise


def _parse(text: str) -> Any:
    return _with_byte_defaults(parse_schema(_without_logical_types(json.loads(text))))


def _with_byte_defaults(node: Any) -> Any:
    """A parsed schema whose defaults of bytes are bytes: in JSON they are text, and fastavro takes them as they are."""
    if isinstance(node, list):
        for branch in node:
            _with_byte_defaults(branch)
    elif isinstance(node, dict):
        for field in node.get("fields", ()):
            if field["type"] == "bytes" and isinstance(field.get("default"), str):
                field["default"] = field["default"].encode("latin-1")
            _with_byte_defaults(field["type"])
        _with_byte_defaults(node.get("items"))
        _with_byte_defaults(node.get("values"))
    return node


def _without_logical_types(node: Any) -> Any:
    if isinstance(node, dict):
        return {k: _without_logical_types(v) for k, v in node.items() if k != "logicalType"}
    if isinstance(node, list):
        return [_without_logical_types(v) for v in node]
    return node
