"""Frames over a real socket pair."""

import socket
import struct
from collections.abc import Iterator

import pytest

from inference.channel import (
    MAX_FRAME_BYTES,
    Begun,
    Cancel,
    Channel,
    ChannelBroken,
    ChannelClosed,
    Done,
    Failed,
    Heartbeat,
    Load,
    LoadFailed,
    MadeArtefact,
    Message,
    Progress,
    Ready,
    Run,
    Stopped,
)

RUN = Run(
    run_id=1,
    pipeline_id="synthetic",
    job_id="j",
    stage="generate",
    attempt=2,
    prompt="a chair é",
    seed=-5,
    quality="draft",
    formats=("glb",),
    parameters={"seconds": "1"},
    inputs={"mesh": "/tmp/m"},
    out_dir="/tmp/o",
)
EVERY: list[Message] = [
    RUN,
    Load(serves=("a/b",)),
    Cancel(run_id=1),
    Ready(resource_class="cpu"),
    LoadFailed(message="m"),
    Progress(run_id=1, fraction=0.5, message="m"),
    Heartbeat(),
    Begun(run_id=1, alone=True),
    Done(
        run_id=1,
        artefacts=(MadeArtefact(role="glb", path="p", media_type="t", data=b"\x00"),),
        figures={"faces": 3.0, "method": "qem", "ok": True},
        seconds=0.5,
    ),
    Failed(run_id=1, error_class="oom", message="m", seconds=1.0, retry_after_seconds=2.5),
    Stopped(run_id=1),
]


@pytest.fixture
def ends() -> Iterator[tuple[Channel, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Channel(ours), theirs


@pytest.mark.parametrize("message", EVERY, ids=lambda m: type(m).__name__)
def test_every_message_arrives_as_it_was_sent(ends: tuple[Channel, socket.socket], message: Message) -> None:
    channel, other = ends
    Channel(other).send(message)
    assert channel.receive(1) == message


def test_messages_that_come_in_one_piece_are_told_apart(ends: tuple[Channel, socket.socket]) -> None:
    channel, other = ends
    sender = Channel(other)
    sender.send(*EVERY)
    assert [channel.receive(0) for _ in EVERY] == EVERY
    assert channel.receive(0) is None


def test_a_message_that_comes_in_pieces_is_put_together(ends: tuple[Channel, socket.socket]) -> None:
    channel, other = ends
    spare, reader = socket.socketpair()
    with spare, reader:
        Channel(spare).send(RUN)
        data = reader.recv(65536)
    for byte in data[:-1]:
        other.send(bytes([byte]))
        assert channel.receive(0) is None
    other.send(data[-1:])
    assert channel.receive(0) == RUN


def test_the_other_ends_death_is_told_after_its_last_words(ends: tuple[Channel, socket.socket]) -> None:
    channel, other = ends
    sender = Channel(other)
    sender.send(Stopped(run_id=1))
    sender.close()
    assert channel.receive(1) == Stopped(run_id=1)
    with pytest.raises(ChannelClosed):
        channel.receive(1)
    with pytest.raises(ChannelClosed):
        channel.send(Cancel(run_id=1))


def test_a_closed_channel_stays_closed(ends: tuple[Channel, socket.socket]) -> None:
    channel, _ = ends
    channel.close()
    with pytest.raises(ChannelClosed):
        channel.receive(0)


@pytest.mark.parametrize(
    "data",
    [struct.pack(">I", MAX_FRAME_BYTES + 1), struct.pack(">I", 3) + b"abc", struct.pack(">I", 1) + b"\x80"],
    ids=["too long", "no message", "no tag"],
)
def test_nonsense_breaks_the_channel(ends: tuple[Channel, socket.socket], data: bytes) -> None:
    channel, other = ends
    other.send(data)
    with pytest.raises(ChannelBroken):
        channel.receive(0)


def test_a_message_over_the_limit_is_not_sent(ends: tuple[Channel, socket.socket]) -> None:
    channel, _ = ends
    with pytest.raises(ChannelBroken):
        channel.send(LoadFailed(message="x" * (MAX_FRAME_BYTES + 1)))
