"""Writes Avro bodies by hand, so that they can be wrong in chosen ways."""

import struct

from schemas.registry import bundled


def varint(number: int) -> bytes:
    """A zigzag varint. Takes numbers of any size, also those that no 64 bits hold."""
    number = number << 1 if number >= 0 else (-number << 1) - 1
    out = bytearray()
    while True:
        number, low = number >> 7, number & 0x7F
        out.append(low | 0x80 if number else low)
        if not number:
            return bytes(out)


def text(value: str | bytes) -> bytes:
    """A string or bytes value: length and content."""
    raw = value.encode() if isinstance(value, str) else value
    return varint(len(raw)) + raw


def header(record: str) -> bytes:
    """Magic byte and the id of a record's latest schema."""
    return struct.pack(">bI", 0, bundled().latest(record).schema_id)


def request(
    *,
    prompt: bytes = varint(1) + text("a red cube"),
    seed: bytes = varint(7),
    quality: bytes = varint(1),
    formats: bytes = varint(1) + text("glb") + varint(0),
    parameters: bytes = varint(0),
    user_id: bytes = text("local"),
    lane: bytes = varint(0),
    priority: bytes = varint(3),
    texture_size: bytes = varint(0),
    end: bytes = varint(0),
) -> bytes:
    """A JobRequested, field by field; each argument is that field's bytes; `end`: the last union but one."""
    head = text("request-1") + text("job-1") + user_id + varint(0) + text("model") + varint(1_795_363_200_000)
    body = text("text-to-3d") + text("assembly") + varint(0) + prompt + seed + quality + formats + parameters
    held = varint(0) + varint(0) + varint(0) + varint(0)  # run_at, on_limit, debounce_key, debounce_seconds
    limits = varint(0) + varint(0) + varint(0) + varint(0)  # start and finish within, max_queue_depth, key_id
    order = varint(0) + lane + priority + texture_size  # traceparent first
    return header("job_requested") + head + body + order + held + limits + end + varint(0)  # resume


def command(*, kind: bytes = varint(0)) -> bytes:
    """A Command with the given bytes of its enum."""
    return header("command") + text("c-1") + kind + text("job-1") + text("local") + text("") + varint(1) + varint(0)


def tenant(
    *, burst_requests: bytes = varint(20), keys: bytes = varint(0), weight: bytes = struct.pack("<d", 1)
) -> bytes:
    """A Tenant with the given bytes of some fields."""
    rate = struct.pack("<d", 60.0)
    scopes = varint(0)
    body = text("u") + text("pro") + weight + rate + burst_requests + scopes + keys + varint(1)
    return header("tenant") + body + varint(0) + varint(0)  # max_running, max_backlog
