"""The object store: the truth for payloads. A local directory, S3, GCS or Azure behind one small interface.

Objects are named `job/stage/attempt/sha256` by what they hold, so that storing twice is storing once. URIs in events
are `<base url>/<key>`.
"""

import hashlib
import mimetypes
import os
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import obstore
from obstore.store import LocalStore, from_url

from streams.kafka.settings import SettingsError

if TYPE_CHECKING:  # names that exist for type checkers alone
    from obstore.store import ClientConfig
    from obstore.store import ObjectStore as ObStore


class ForeignUri(ValueError):
    """The URI does not belong to this object store."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        super().__init__(f"{uri} is not in this object store")


class ObjectMissing(KeyError):
    """The object store has no such object."""


# Keys that a local directory holds under the very same name; obstore spells the others in its own way.
_PLAIN_KEY: Final = re.compile(r"(?!.*(?:^|/)\.{1,2}(?:/|$))[\w.-]+(?:/[\w.-]+)*", re.ASCII)


def _is_plain(key: str) -> bool:
    return _PLAIN_KEY.fullmatch(key) is not None


def _make_folder(path: str) -> None:
    try:
        os.mkdir(path)
    except FileExistsError:
        pass
    except FileNotFoundError:
        _make_folder(os.path.dirname(path))
        _make_folder(path)


def _write(path: str, data: bytes, *, in_place: bool) -> None:
    """Writes a small file whole or not at all, as obstore does, in a fifth of its CPU time. in_place: without a draft,
    so that a process that is killed may leave a part of it."""
    # Listings of obstore leave names of this form out: they are files that are being written.
    draft = path if in_place else f"{path}#{os.getpid()}{threading.get_ident()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    try:
        out = os.open(draft, flags, 0o644)
    except FileNotFoundError:
        _make_folder(os.path.dirname(path))
        out = os.open(draft, flags, 0o644)
    try:
        try:
            written = os.write(out, data)
            while written < len(data):
                written += os.write(out, memoryview(data)[written:])
        finally:
            os.close(out)
        if not in_place:
            os.rename(draft, path)
    except BaseException:
        os.unlink(draft)
        raise


@dataclass(frozen=True, kw_only=True)
class StoredObject:
    """What was stored. uri: for events; bytes: size."""

    uri: str
    sha256: str
    bytes: int
    media_type: str


class ObjectStore:
    """Objects under one base URL: file:///dir, s3://bucket/prefix, gs://..., az://...

    S3 keys, regions and endpoints come from the usual AWS_* variables.
    """

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url.rstrip("/")
        self._store: ObStore
        self._root: str | None = None
        if self.base_url.startswith("file://"):
            self._root = self.base_url.removeprefix("file://")
            self._store = LocalStore(self._root, mkdir=True)
        else:
            plain = os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://")
            options: ClientConfig | None = {"allow_http": True} if plain else None
            self._store = from_url(self.base_url, client_options=options)

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> "ObjectStore":
        """The store at MESHYARD_OBJECTS_URL. Raises SettingsError."""
        url = env.get("MESHYARD_OBJECTS_URL")
        if not url or "://" not in url:
            raise SettingsError("MESHYARD_OBJECTS_URL", "not set; give file:///directory or s3://bucket/prefix")
        return cls(url)

    def put_file(self, prefix: str, path: Path, media_type: str | None = None) -> StoredObject:
        """Stores a file as `prefix/sha256` and returns what events need."""
        digest = hashlib.sha256()
        with path.open("rb") as source:
            while block := source.read(1 << 20):
                digest.update(block)
        key = f"{prefix}/{digest.hexdigest()}"
        obstore.put(self._store, key, path)
        return StoredObject(
            uri=self.uri(key),
            sha256=digest.hexdigest(),
            bytes=path.stat().st_size,
            media_type=media_type or mimetypes.guess_type(path.name)[0] or "application/octet-stream",
        )

    def put(self, key: str, data: bytes, *, new: bool = False) -> str:
        """Stores bytes under a key of the caller's and returns the URI. new: nobody else writes to this key, and nobody
        reads it before this call has returned."""
        if self._root is not None and _is_plain(key):
            _write(f"{self._root}/{key}", data, in_place=new)
        else:
            obstore.put(self._store, key, data)
        return self.uri(key)

    def local_path(self, uri: str) -> Path | None:
        """Where the object itself lies when the store is a local directory, so that it need not be copied to be read;
        else None. Never to be written to. Raises ForeignUri."""
        key = self.key_of(uri)
        return Path(f"{self._root}/{key}") if self._root is not None and _is_plain(key) else None

    def get(self, key: str) -> bytes:
        """An object's bytes. Raises ObjectMissing."""
        try:
            return bytes(obstore.get(self._store, key).bytes())
        except FileNotFoundError:
            raise ObjectMissing(key) from None

    def stream(
        self, key: str, chunk_bytes: int = 1 << 20, *, span: tuple[int, int] | None = None
    ) -> tuple[int, Iterator[bytes]]:
        """An object's size and its bytes in pieces; span: those from the first offset to before the second alone.
        Raises ObjectMissing."""
        try:
            found = obstore.get(self._store, key, options=None if span is None else {"range": span})
        except FileNotFoundError:
            raise ObjectMissing(key) from None
        return found.meta["size"], (bytes(chunk) for chunk in found.stream(min_chunk_size=chunk_bytes))

    def fetch(self, uri: str, target: Path) -> None:
        """Copies an object to a file. Raises ForeignUri, ObjectMissing."""
        _, chunks = self.stream(self.key_of(uri))
        with target.open("wb") as out:
            for chunk in chunks:
                out.write(chunk)

    def keys(self, prefix: str) -> list[str]:
        """Keys below a prefix, sorted."""
        return sorted(item["path"] for page in obstore.list(self._store, prefix) for item in page)

    def delete(self, key: str) -> None:
        """Removes an object; one that is absent is no error."""
        try:
            obstore.delete(self._store, key)
        except FileNotFoundError:
            pass

    def uri(self, key: str) -> str:
        """The URI of a key."""
        return f"{self.base_url}/{key}"

    def key_of(self, uri: str) -> str:
        """The key of one of this store's URIs. Raises ForeignUri."""
        key = uri.removeprefix(self.base_url + "/")
        if key == uri or ".." in key.split("/"):
            raise ForeignUri(uri)
        return key
