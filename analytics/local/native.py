"""Copies blocks between ClickHouse's Native format and the native protocol without decoding values.

Both carry a column as the same bytes; only the frame around it differs (the protocol adds block info and,
since revision 54454, a serialisation flag per column). So a column is copied by its type: fixed widths in one
go, strings by their lengths. Nothing is rounded on the way (nanoseconds, NaN payloads, bytes that are no
UTF-8), and a value costs no Python object. Layouts: ClickHouse, src/DataTypes/Serializations.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from clickhouse_driver.varint import read_varint, write_varint

from analytics.local.errors import Code, EngineError

_WIDTHS_BYTES = {
    "UInt8": 1, "Int8": 1, "Bool": 1, "Enum8": 1, "Nothing": 1,
    "UInt16": 2, "Int16": 2, "Enum16": 2, "Date": 2, "BFloat16": 2,
    "UInt32": 4, "Int32": 4, "Float32": 4, "Date32": 4, "DateTime": 4, "IPv4": 4, "Decimal32": 4, "Time": 4,
    "UInt64": 8, "Int64": 8, "Float64": 8, "DateTime64": 8, "Decimal64": 8, "Time64": 8,
    "UInt128": 16, "Int128": 16, "UUID": 16, "IPv6": 16, "Decimal128": 16,
    "UInt256": 32, "Int256": 32, "Decimal256": 32,
}  # fmt: skip
_ALIASES = {
    "Point": "Tuple(Float64, Float64)",
    "Ring": "Array(Tuple(Float64, Float64))",
    "LineString": "Array(Tuple(Float64, Float64))",
    "Polygon": "Array(Array(Tuple(Float64, Float64)))",
    "MultiLineString": "Array(Array(Tuple(Float64, Float64)))",
    "MultiPolygon": "Array(Array(Array(Tuple(Float64, Float64))))",
}
_DECIMAL_WIDTHS_BYTES = ((9, 4), (18, 8), (38, 16), (76, 32))
_INDEX_WIDTHS_BYTES = (1, 2, 4, 8)
_NAMED_ELEMENT = re.compile(r"^(?:`(?:[^`\\]|\\.)*`|[A-Za-z_]\w*)\s+(?=[A-Z])")
_LOW_CARDINALITY_KEYS_VERSION = 1


class Reader(Protocol):
    """What is used of clickhouse-driver's buffered readers."""

    def read(self, size: int) -> bytes: ...
    def read_strings(self, n_items: int) -> tuple[bytes, ...]: ...


class Writer(Protocol):
    """What is used of clickhouse-driver's buffered writers."""

    def write(self, data: bytes) -> None: ...
    def write_strings(self, items: tuple[bytes, ...]) -> None: ...


def split_arguments(text: str) -> list[str]:
    """Splits a type's arguments at top-level commas: `String, Array(UInt8)` -> two items."""
    parts: list[str] = []
    depth, start, index = 0, 0, 0
    while index < len(text):
        char = text[index]
        if char in "'`":
            index = _end_of_quoted(text, index)
        elif char == "(":
            depth += 1
        elif char == ")":
            depth -= 1
        elif char == "," and depth == 0:
            parts.append(text[start:index].strip())
            start = index + 1
        index += 1
    tail = text[start:].strip()
    return [*parts, tail] if tail else parts


def _end_of_quoted(text: str, start: int) -> int:
    """Index of the quote that closes the one at `start`."""
    index = start + 1
    while index < len(text) and text[index] != text[start]:
        index += 2 if text[index] == "\\" else 1
    return index


class _Column:
    """How one type's bytes are laid out. `prefix` stands before all data of the column, nested types included."""

    def prefix(self, source: Reader, sink: Writer) -> None:  # noqa: ARG002 - most types have none
        return

    def data(self, rows: int, source: Reader, sink: Writer) -> None:
        raise NotImplementedError


class _Fixed(_Column):
    def __init__(self, width_bytes: int) -> None:
        self._width_bytes = width_bytes

    def data(self, rows: int, source: Reader, sink: Writer) -> None:
        sink.write(source.read(rows * self._width_bytes))


class _String(_Column):
    def data(self, rows: int, source: Reader, sink: Writer) -> None:
        sink.write_strings(source.read_strings(rows))


class _Nullable(_Column):
    def __init__(self, inner: _Column) -> None:
        self._inner = inner

    def prefix(self, source: Reader, sink: Writer) -> None:
        self._inner.prefix(source, sink)

    def data(self, rows: int, source: Reader, sink: Writer) -> None:
        sink.write(source.read(rows))
        self._inner.data(rows, source, sink)


class _Tuple(_Column):
    def __init__(self, elements: list[_Column]) -> None:
        self._elements = elements

    def prefix(self, source: Reader, sink: Writer) -> None:
        for element in self._elements:
            element.prefix(source, sink)

    def data(self, rows: int, source: Reader, sink: Writer) -> None:
        if not self._elements:  # Tuple() has one byte a row
            sink.write(source.read(rows))
        for element in self._elements:
            element.data(rows, source, sink)


class _Array(_Column):
    def __init__(self, inner: _Column) -> None:
        self._inner = inner

    def prefix(self, source: Reader, sink: Writer) -> None:
        self._inner.prefix(source, sink)

    def data(self, rows: int, source: Reader, sink: Writer) -> None:
        ends = source.read(rows * 8)  # (rows,) uint64: where each row's elements end
        sink.write(ends)
        total = int.from_bytes(ends[-8:], "little")
        if total:
            self._inner.data(total, source, sink)


class _LowCardinality(_Column):
    def __init__(self, keys: _Column) -> None:
        self._keys = keys  # a Nullable's NULL is key 0, so keys are stored without a null map

    def prefix(self, source: Reader, sink: Writer) -> None:
        version = source.read(8)
        if int.from_bytes(version, "little") != _LOW_CARDINALITY_KEYS_VERSION:
            raise EngineError(Code.CANNOT_READ_ALL_DATA, "Invalid version of the LowCardinality keys")
        sink.write(version)

    def data(self, rows: int, source: Reader, sink: Writer) -> None:
        head = source.read(16)  # uint64 flags with the index type in the low byte, uint64 number of keys
        sink.write(head)
        index_type = head[0] & 0x0F
        if index_type >= len(_INDEX_WIDTHS_BYTES):
            raise EngineError(Code.CANNOT_READ_ALL_DATA, "Invalid index type of a LowCardinality column")
        self._keys.data(int.from_bytes(head[8:], "little"), source, sink)
        sink.write(source.read(8 + rows * _INDEX_WIDTHS_BYTES[index_type]))


def _fixed_width_bytes(name: str, arguments: list[str]) -> int | None:
    if name == "Decimal":
        precision = int(arguments[0])
        return next((width for limit, width in _DECIMAL_WIDTHS_BYTES if precision <= limit), None)
    if name == "FixedString":
        return int(arguments[0])
    if name.startswith("Interval"):
        return 8
    return _WIDTHS_BYTES.get(name)


@lru_cache(maxsize=1024)
def _column(spec: str) -> _Column:
    """The layout of a type as ClickHouse writes it.

    Raises:
        EngineError: UNKNOWN_TYPE for types whose layout depends on the data (JSON, Dynamic, Variant) and for
            aggregate function states, which a client reads through -Merge functions.
    """
    spec = _ALIASES.get(spec, spec)
    name, bracket, rest = spec.partition("(")
    arguments = split_arguments(rest[:-1]) if bracket else []
    width_bytes = _fixed_width_bytes(name, arguments)
    if width_bytes is not None:
        return _Fixed(width_bytes)
    if name == "String":
        return _String()
    if name == "Nullable":
        return _Nullable(_column(arguments[0]))
    if name == "Array":
        return _Array(_column(arguments[0]))
    if name == "Map":
        return _Array(_Tuple([_column(argument) for argument in arguments]))
    if name in ("Tuple", "Nested"):
        elements = _Tuple([_column(_NAMED_ELEMENT.sub("", argument)) for argument in arguments])
        return elements if name == "Tuple" else _Array(elements)
    if name == "LowCardinality":
        inner = arguments[0]
        return _LowCardinality(_column(inner[len("Nullable(") : -1] if inner.startswith("Nullable(") else inner))
    if name == "SimpleAggregateFunction":
        return _column(arguments[-1])
    raise EngineError(Code.UNKNOWN_TYPE, f"Type {spec} cannot be sent here; convert it, for example with toString")


@dataclass(frozen=True, kw_only=True)
class Framing:
    """How the frame changes on the way of a block from source to sink.

    `read_flags`, `write_flags`: a serialisation flag stands behind each type name (the protocol from revision
    54454 on). `specs`: the types to write, by position, in place of those read; of the same layout.
    """

    read_flags: bool
    write_flags: bool
    specs: tuple[str, ...] | None = None


def copy_columns(shape: tuple[int, int], source: Reader, sink: Writer, framing: Framing) -> list[tuple[str, str]]:
    """Copies the columns of one block; `shape` is (columns, rows), already read by the caller.

    Returns names and types as written.
    """
    columns, rows = shape
    write_varint(columns, sink)
    write_varint(rows, sink)
    header = []
    for index in range(columns):
        name, spec = _read_text(source), _read_text(source)
        header.append((name, framing.specs[index] if framing.specs is not None else spec))
        sink.write_strings(tuple(text.encode() for text in header[-1]))
        if framing.read_flags and source.read(1) != b"\x00":
            raise EngineError(Code.NOT_IMPLEMENTED, f"Column {name} uses a custom serialization")
        if framing.write_flags:
            sink.write(b"\x00")
        if rows:
            column = _column(spec)
            column.prefix(source, sink)
            column.data(rows, source, sink)
    return header


def _read_text(source: Reader) -> str:
    return source.read(read_varint(source)).decode()


def write_header(header: list[tuple[str, str]], sink: Writer) -> None:
    """Writes a block of names and types without rows, with the protocol's serialisation flags."""
    write_varint(len(header), sink)
    write_varint(0, sink)
    for name, spec in header:
        sink.write_strings((name.encode(), spec.encode()))
        sink.write(b"\x00")
