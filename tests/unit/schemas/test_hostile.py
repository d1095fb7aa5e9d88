"""Whatever bytes stand in a record, reading them ends in a record or in one CodecError; nothing else ever comes out."""

import struct

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from schemas import errors
from schemas.codec import MAX_MESSAGE_BYTES, Codec
from schemas.registry import bundled
from tests.unit.schemas.examples import RECORDS, load
from tests.unit.schemas.wire import command, header, request, tenant, text, varint

CODEC = Codec()
HUGE = 2**62
LONGEST = 2**63 - 1


def strict(data: bytes | None) -> str:
    """The name of the error that strict reading ends with; `ok` when it ends with a record."""
    try:
        CODEC.decode_strict(data)
    except errors.CodecError as error:
        return type(error).__name__
    return "ok"


def test_bytes_written_by_hand_are_what_the_codec_writes() -> None:
    record = CODEC.decode_strict(request())
    assert record["prompt"] == "a red cube"
    assert CODEC.encode("job_requested", record) == request()
    assert CODEC.encode("command", CODEC.decode_strict(command())) == command()
    assert CODEC.encode("tenant", CODEC.decode_strict(tenant())) == tenant()


HEADERS = {
    "a tombstone": (None, "EmptyMessage"),
    "no bytes": (b"", "EmptyMessage"),
    "magic byte 1": (b"\x01" + request()[1:], "WrongMagicByte"),
    "JSON": (b'{"prompt": "a chair"}', "WrongMagicByte"),
    "only the magic byte": (b"\x00", "TruncatedMessage"),
    "four bytes": (b"\x00\x00\x00\x00", "TruncatedMessage"),
    "only a header": (header("job_requested"), "TruncatedMessage"),
    "id 0": (struct.pack(">bI", 0, 0) + request()[5:], "UnknownSchemaId"),
    "id 9999": (struct.pack(">bI", 0, 9999) + request()[5:], "UnknownSchemaId"),
    "the greatest id": (b"\x00\xff\xff\xff\xff" + request()[5:], "UnknownSchemaId"),
    "one byte over the limit": (header("job_requested") + bytes(MAX_MESSAGE_BYTES - 4), "MessageTooLarge"),
    "a megabyte of wrong magic": (b"\xff" * 1_048_576, "MessageTooLarge"),
}

BODIES = {
    "one trailing byte": (request() + b"\x00", "TrailingBytes"),
    "a second record behind": (request() + request(), "TrailingBytes"),
    "union index -1": (request(prompt=varint(-1) + text("x")), "IndexOutOfRange"),
    "union index -2": (request(prompt=varint(-2)), "IndexOutOfRange"),
    "union index 2": (request(prompt=varint(2) + text("x")), "IndexOutOfRange"),
    "union index 77": (request(prompt=varint(77) + text("x")), "IndexOutOfRange"),
    "enum index -1": (request(quality=varint(-1)), "IndexOutOfRange"),
    "enum index -3": (request(quality=varint(-3)), "IndexOutOfRange"),
    "enum index 3": (request(quality=varint(3)), "IndexOutOfRange"),
    "enum index 77": (request(quality=varint(77)), "IndexOutOfRange"),
    "enum of one symbol, index -1": (command(kind=varint(-1)), "IndexOutOfRange"),
    "the last union's index -1": (request(end=varint(-1) + text("x")), "IndexOutOfRange"),
    "a string of 2^62 bytes": (request(user_id=varint(HUGE) + b"local"), "TruncatedMessage"),
    "a string of 2^63-1 bytes": (request(user_id=varint(LONGEST)), "TruncatedMessage"),
    "a string of -1 bytes": (request(user_id=varint(-1)), "TruncatedMessage"),
    "a string of -2^63 bytes": (request(user_id=varint(-(2**63))), "TruncatedMessage"),
    "an array of 2^62 strings": (request(formats=varint(HUGE) + text("glb")), "TruncatedMessage"),
    "a block of -2^63 strings": (request(formats=varint(-(2**63)) + varint(9)), "TruncatedMessage"),
    "a map of 2^62 entries": (request(parameters=varint(HUGE) + text("a")), "TruncatedMessage"),
    "a block that promises more than it holds": (
        request(formats=varint(-2) + varint(4) + text("glb") + varint(0)),
        "IndexOutOfRange",  # the next fields are read as its items
    ),
    "bad UTF-8 in a string": (request(user_id=text(b"\xff\xfe\xfd")), "InvalidField"),
    "half a UTF-8 character": (request(user_id=text("é".encode()[:1])), "InvalidField"),
    "a surrogate in UTF-8": (request(user_id=text(b"\xed\xa0\x80")), "InvalidField"),
    "bad UTF-8 in a map key": (request(parameters=varint(1) + text(b"\xff") + text("x") + varint(0)), "InvalidField"),
    "a varint of 11 bytes": (request(seed=b"\xff" * 10 + b"\x01"), "InvalidField"),
    "a varint of 65 bits": (request(seed=b"\xff" * 9 + b"\x7f"), "InvalidField"),
    "a zero of 12 bytes": (request(seed=b"\x80" * 11 + b"\x00"), "InvalidField"),
    "an int of 33 bits": (tenant(burst_requests=varint(2**31)), "InvalidField"),
    "an int of 33 bits below zero": (tenant(burst_requests=varint(-(2**31) - 1)), "InvalidField"),
    "an int of 62 bits": (tenant(burst_requests=varint(2**61)), "InvalidField"),
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_wrong_header(case: str) -> None:
    data, expected = HEADERS[case]
    assert strict(data) == expected
    with pytest.raises(errors.CodecError) as caught:
        CODEC.decode(data)
    assert type(caught.value).__name__ == expected


@pytest.mark.parametrize("case", BODIES)
def test_a_wrong_body(case: str) -> None:
    data, expected = BODIES[case]
    assert strict(data) == expected


@pytest.mark.parametrize("case", BODIES)
def test_the_error_names_the_schema(case: str) -> None:
    data, _ = BODIES[case]
    with pytest.raises(errors.CodecError) as caught:
        CODEC.decode_strict(data)
    assert caught.value.schema_id == CODEC.schema_id(data)


def test_a_quarter_megabyte_of_continuation_bytes_ends_at_once() -> None:
    assert strict(header("job_requested") + b"\xff" * (MAX_MESSAGE_BYTES - 5)) != "ok"


def test_the_limit_is_inclusive() -> None:
    spare = MAX_MESSAGE_BYTES - len(request(prompt=varint(1) + text("")))
    data = request(prompt=varint(1) + text("x" * (spare - 2)))
    assert len(data) == MAX_MESSAGE_BYTES
    assert strict(data) == "ok"
    assert strict(data + b"\x00") == "MessageTooLarge"


SPELLINGS = {
    "a block with its size": request(formats=varint(-1) + varint(4) + text("glb") + varint(0)),
    "a block whose size lies": request(formats=varint(-1) + varint(999) + text("glb") + varint(0)),
    "one item a block": request(formats=varint(1) + text("glb") + varint(1) + text("obj") + varint(0)),
    "a map in blocks": request(
        parameters=varint(-1) + varint(4) + text("a") + text("1") + varint(1) + text("b") + text("2") + varint(0)
    ),
    "a key twice": request(parameters=varint(2) + text("a") + text("1") + text("a") + text("2") + varint(0)),
    "a long of more bytes than it needs": request(seed=b"\x8e\x80\x00"),
    "the greatest long": request(seed=varint(LONGEST)),
    "the least long": request(seed=varint(-(2**63))),
    "the greatest int": tenant(burst_requests=varint(2**31 - 1)),
    "the least int": tenant(burst_requests=varint(-(2**31))),
    "not a number": tenant(weight=struct.pack("<d", float("nan"))),
    "records in a block with its size": tenant(
        keys=varint(-1) + varint(8) + text("k") + text("s") + varint(1) + 3 * varint(0) + varint(0)
    ),
    "no prompt": request(prompt=varint(0)),
}


@pytest.mark.parametrize("case", SPELLINGS)
def test_what_the_specification_allows_is_read(case: str) -> None:
    assert strict(SPELLINGS[case]) == "ok"


def test_another_spelling_reads_the_same() -> None:
    assert CODEC.decode_strict(SPELLINGS["a block with its size"]) == CODEC.decode_strict(request())
    assert CODEC.decode_strict(SPELLINGS["a map in blocks"])["parameters"] == {"a": "1", "b": "2"}
    assert CODEC.decode_strict(SPELLINGS["one item a block"])["formats"] == ["glb", "obj"]


def test_another_spelling_does_not_hide_a_bad_index() -> None:
    blocks = varint(-1) + varint(4) + text("glb") + varint(0)
    assert strict(request(formats=blocks, end=varint(-1) + text("x"))) == "IndexOutOfRange"
    assert strict(request(formats=blocks, quality=varint(-1))) == "IndexOutOfRange"


@pytest.mark.parametrize("record", RECORDS)
def test_truncated_at_every_length(record: str) -> None:
    data = CODEC.encode(record, load(record, "full"))
    for length in range(1, len(data)):
        with pytest.raises(errors.TruncatedMessage):
            CODEC.decode_strict(data[:length])
        with pytest.raises(errors.TruncatedMessage):
            CODEC.decode(data[:length])


@settings(deadline=None, max_examples=300)
@given(schema_id=st.sampled_from([version.schema_id for version in bundled().all()]), body=st.binary(max_size=400))
@example(schema_id=1, body=b"\xff" * 400)
@example(schema_id=6, body=b"\x01" * 400)
def test_random_bodies_give_a_record_or_a_codec_error(schema_id: int, body: bytes) -> None:
    data = struct.pack(">bI", 0, schema_id) + body
    for read in (CODEC.decode, CODEC.decode_strict):
        try:
            record = read(data)
        except errors.CodecError:
            continue
        assert isinstance(record, dict)


@settings(deadline=None, max_examples=300)
@given(data=st.one_of(st.none(), st.binary(max_size=64)))
def test_random_bytes_give_a_codec_error(data: bytes | None) -> None:
    assume(strict(data) != "ok")  # six bytes can be an admission_tick
    for read in (CODEC.decode, CODEC.decode_strict):
        with pytest.raises(errors.CodecError) as caught:
            read(data)
        assert caught.value.code in {kind.code for kind in errors.CodecError.__subclasses__()}


@settings(deadline=None, max_examples=400)
@given(
    record=st.sampled_from(RECORDS),
    place=st.integers(min_value=5, max_value=10_000),
    flipped=st.integers(min_value=1, max_value=255),
)
def test_a_flipped_byte_gives_a_record_or_a_codec_error(record: str, place: int, flipped: int) -> None:
    data = bytearray(CODEC.encode(record, load(record, "full")))
    data[5 + place % (len(data) - 5)] ^= flipped
    try:
        found = CODEC.decode_strict(bytes(data), record)
    except errors.CodecError:
        return
    # What strict reading lets through can be written again, so it can be passed on.
    assert CODEC.decode(CODEC.encode(record, found), record).keys() == found.keys()


def test_each_error_has_a_code_of_its_own_and_a_message() -> None:
    kinds = errors.CodecError.__subclasses__()
    codes = [kind.code for kind in kinds]
    assert len(set(codes)) == len(codes)
    assert "undecodable" not in codes
    for kind in kinds:
        error = kind("the detail", schema_id=7)
        assert str(error).endswith("the detail")
        assert str(error).startswith((kind.__doc__ or "").splitlines()[0])
        assert error.schema_id == 7


def test_the_schema_id_of_a_dead_letter() -> None:
    assert CODEC.schema_id(request() + b"junk") == bundled().latest("job_requested").schema_id
    assert CODEC.schema_id(b"\x00\x00\x00\x27\x0f") == 9999
    for data in (None, b"", b"\x00\x00", b"\x05\x00\x00\x00\x01"):
        assert CODEC.schema_id(data) is None
