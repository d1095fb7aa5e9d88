"""Blocks copied column by column, without the engine."""

import io
from typing import Any

import pytest
from clickhouse_driver.bufferedwriter import CompressedBufferedWriter
from clickhouse_driver.varint import read_varint

from analytics.local.engine import memory_reader
from analytics.local.errors import EngineError
from analytics.local.native import Framing, copy_columns, split_arguments

PLAIN = Framing(read_flags=False, write_flags=False)


def u64(*values: int) -> bytes:
    return b"".join(value.to_bytes(8, "little") for value in values)


def copied(spec: str, rows: int, data: bytes, framing: Framing = PLAIN) -> tuple[bytes, bytes]:
    """The block of one column `c` as it went in and as it came out."""
    block = bytes([1, rows, 1]) + b"c" + bytes([len(spec)]) + spec.encode() + data
    source: Any = memory_reader(block)
    out = io.BytesIO()
    sink = CompressedBufferedWriter(out, 64)
    copy_columns((read_varint(source), read_varint(source)), source, sink, framing)
    sink.flush()
    assert source.position == source.current_buffer_size
    return block, out.getvalue()


@pytest.mark.parametrize(
    ("spec", "rows", "data"),
    [
        ("UInt8", 3, b"\x01\x02\x03"),
        ("Decimal(38, 3)", 1, bytes(16)),
        ("DateTime64(9, 'Europe/Berlin')", 2, u64(1, 2**63)),
        ("FixedString(3)", 2, b"abcdef"),
        ("String", 3, b"\x00\x02\xff\xfe\x01x"),
        ("Nullable(String)", 2, b"\x00\x01\x01a\x00"),
        ("Array(String)", 2, u64(1, 2) + b"\x01a\x01b"),
        ("Array(Array(UInt8))", 2, u64(1, 1) + u64(2) + b"\x07\x08"),
        ("Array(Nothing)", 1, u64(0)),
        ("Map(String, UInt8)", 1, u64(1) + b"\x01k" + b"\x05"),
        ("Tuple(a UInt8, `b c` Nullable(UInt8))", 1, b"\x01\x00\x02"),
        ("Tuple()", 2, b"00"),
        ("LowCardinality(String)", 2, u64(1) + u64(0x600, 2) + b"\x00\x01a" + u64(2) + b"\x01\x00"),
        ("LowCardinality(Nullable(String))", 1, u64(1) + u64(0x600, 2) + b"\x00\x01a" + u64(1) + b"\x01"),
        ("Array(LowCardinality(String))", 1, u64(1) + u64(0)),
        ("SimpleAggregateFunction(max, Nullable(UInt8))", 1, b"\x00\x09"),
        ("Enum8('a,(' = 1, 'b\\'' = 2)", 1, b"\x01"),
        ("IntervalDay", 1, u64(3)),
        ("Point", 1, bytes(16)),
        ("LowCardinality(String)", 0, b""),
    ],
)
def test_columns_are_copied_as_they_are(spec: str, rows: int, data: bytes) -> None:
    block, out = copied(spec, rows, data)
    assert out == block


def test_flags_are_added_and_types_replaced() -> None:
    _, out = copied("DateTime", 1, bytes(4), Framing(read_flags=False, write_flags=True, specs=("DateTime('UTC')",)))
    assert out == b"\x01\x01\x01c" + bytes([15]) + b"DateTime('UTC')" + b"\x00" + bytes(4)


@pytest.mark.parametrize(
    ("spec", "data"),
    [
        ("AggregateFunction(count)", b""),
        ("JSON", b""),
        ("LowCardinality(String)", u64(7)),
        ("LowCardinality(String)", u64(1) + u64(0x609, 0)),
    ],
)
def test_what_cannot_be_read_to_its_end_is_an_error(spec: str, data: bytes) -> None:
    with pytest.raises(EngineError):
        copied(spec, 1, data)


def test_truncated_data_is_an_end_of_file() -> None:
    with pytest.raises(EOFError):
        copied("UInt64", 1, b"\x01")


def test_arguments_are_split_outside_of_brackets_and_quotes() -> None:
    assert split_arguments("a Tuple(b UInt8, c Enum8('x,' = 1)), `d,` String") == [
        "a Tuple(b UInt8, c Enum8('x,' = 1))",
        "`d,` String",
    ]
