"""The one channel between a worker and its child: typed messages over a socket pair.

A frame is a 4-byte big-endian length and a msgpack body. The child is the only one who may block in `receive` without
a limit; the worker gives a timeout each time.
"""

import select
import socket
import struct
from typing import Final

import msgspec

MAX_FRAME_BYTES: Final = 4 * 1024 * 1024
_LENGTH: Final = struct.Struct(">I")
_READ_BYTES: Final = 64 * 1024


class Load(msgspec.Struct, frozen=True, kw_only=True, tag="load"):
    """Worker: load these stages (pipeline_id/stage), in these versions of their pipelines (pipeline_id@version; where
    none is named, the newest), and say Ready."""

    serves: tuple[str, ...]
    versions: tuple[str, ...] = ()


class Run(msgspec.Struct, frozen=True, kw_only=True, tag="run"):
    """Worker: run one attempt of a stage; those that are sent meanwhile wait for their turn. inputs: local files by
    role; out_dir: an existing, empty folder."""

    run_id: int
    pipeline_id: str
    job_id: str
    stage: str
    attempt: int
    prompt: str | None
    seed: int
    quality: str
    formats: tuple[str, ...]
    parameters: dict[str, str]
    inputs: dict[str, str]
    out_dir: str
    model_version: str | None = None
    texture_size: int | None = None


class Cancel(msgspec.Struct, frozen=True, kw_only=True, tag="cancel"):
    """Worker: stop that run at the next chance; a run that has ended is not touched."""

    run_id: int


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    """Child: every stage is loaded. resource_class: gpu or cpu, as the child found it."""

    resource_class: str


class LoadFailed(msgspec.Struct, frozen=True, kw_only=True, tag="load_failed"):
    """Child: a stage cannot be loaded; the child ends."""

    message: str


class Begun(msgspec.Struct, frozen=True, kw_only=True, tag="begun"):
    """Child: this run goes on for a while. alone: until it ends, the child does nothing else; else it only waits.

    A run that ends at once is not said to have begun.
    """

    run_id: int
    alone: bool


class Progress(msgspec.Struct, frozen=True, kw_only=True, tag="progress"):
    """Child: how far the stage is, 0 to 1."""

    run_id: int
    fraction: float
    message: str


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True, tag="heartbeat"):
    """Child: still at it, though nothing is to be told."""


class MadeArtefact(msgspec.Struct, frozen=True, kw_only=True):
    """A file that the stage wrote below out_dir, or the bytes that such a file would hold."""

    role: str
    path: str
    media_type: str
    data: bytes | None = None


class Done(msgspec.Struct, frozen=True, kw_only=True, tag="done"):
    """Child: the stage ended with these files. figures: facts for the manifest; seconds: how long it ran."""

    run_id: int
    artefacts: tuple[MadeArtefact, ...]
    figures: dict[str, float | str | bool]
    seconds: float


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """Child: the stage ended without a result. retry_after_seconds: how long it asks to be left alone."""

    run_id: int
    error_class: str
    message: str
    seconds: float
    retry_after_seconds: float | None = None


class Stopped(msgspec.Struct, frozen=True, kw_only=True, tag="stopped"):
    """Child: the run was canceled before it began, or gave up because it was."""

    run_id: int


ToChild = Load | Run | Cancel
ToWorker = Ready | LoadFailed | Begun | Progress | Heartbeat | Done | Failed | Stopped
Message = ToChild | ToWorker


class ChannelClosed(ConnectionError):
    """The other end is gone."""

    def __init__(self) -> None:
        super().__init__(self.__doc__)


class ChannelBroken(ConnectionError):
    """The other end sent bytes that are no message."""

    def __init__(self, detail: str) -> None:
        self.detail = detail
        super().__init__(f"{self.__doc__} {detail}")


class Channel:
    """One end. Sends may come from several threads only if the caller takes turns; receives come from one."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(True)
        self._socket = end
        self._closed = False
        self._buffer = bytearray()
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(Message)
        self._poll = select.poll()
        self._poll.register(end, select.POLLIN)

    def send(self, *messages: Message) -> None:
        """Sends messages whole. Raises ChannelClosed."""
        frames = bytearray()
        for message in messages:
            body = self._encoder.encode(message)
            if len(body) > MAX_FRAME_BYTES:
                raise ChannelBroken(f"{type(message).__name__} has {len(body)} bytes, the limit is {MAX_FRAME_BYTES}")
            frames += _LENGTH.pack(len(body))
            frames += body
        try:
            self._socket.sendall(frames)
        except OSError:
            raise ChannelClosed from None

    def fileno(self) -> int:
        """For select: readable when `receive` has something to read."""
        return self._socket.fileno()

    def receive(self, timeout_seconds: float | None = None) -> Message | None:
        """The next message, None when there is none in time (None waits for ever). Raises ChannelClosed,
        ChannelBroken."""
        while (message := self._buffered()) is None:
            if self._closed:  # its file descriptor may be another file's by now
                raise ChannelClosed
            if timeout_seconds is not None and not self._poll.poll(max(0.0, timeout_seconds) * 1000):
                return None
            try:
                data = self._socket.recv(_READ_BYTES)
            except OSError:
                raise ChannelClosed from None
            if not data:
                raise ChannelClosed
            self._buffer += data
        return message

    def close(self) -> None:
        """Closes this end; the other one reads ChannelClosed."""
        self._closed = True
        self._socket.close()

    def _buffered(self) -> Message | None:
        if len(self._buffer) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._buffer)
        if length > MAX_FRAME_BYTES:
            raise ChannelBroken(f"a frame of {length} bytes")
        end = _LENGTH.size + length
        if len(self._buffer) < end:
            return None
        body = bytes(self._buffer[_LENGTH.size : end])
        del self._buffer[:end]
        try:
            message: Message = self._decoder.decode(body)
        except msgspec.DecodeError as error:
            raise ChannelBroken(str(error)) from error
        return message
