"""Which schema has which id.

Ids come from a Confluent-compatible registry (`MESHYARD_SCHEMA_REGISTRY_URL`) or, without one, from `ids.lock.json`
beside the schemas. A locked schema is immutable: its canonical text is hashed, a changed file is refused, a new
version is a new file. The gateway serves the locked ids over the registry's REST API, so plain producers find them.
"""

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any, Final, Protocol

from fastavro.schema import to_parsing_canonical_form

from schemas.errors import RegistryError

AVRO = resources.files("schemas") / "avro"
LOCK = resources.files("schemas") / "ids.lock.json"
MAX_CACHED_IDS: Final = 4096
MAX_SCHEMA_ID: Final = 2**31 - 1  # registries count in signed 32 bits and refuse more as a bad request


@dataclass(frozen=True, kw_only=True)
class SchemaVersion:
    """One published version of one record schema.

    name: the record's folder under `avro/`; version: from 1; schema_id: what the wire format's header carries;
    text: the schema as JSON, documentation and logical types included.
    """

    name: str
    version: int
    schema_id: int
    text: str


class Registry(Protocol):
    """Where ids and schemas come from. All calls raise RegistryError when there is no answer."""

    def latest(self, name: str) -> SchemaVersion:
        """The version that writers of record `name` use."""

    def by_id(self, schema_id: int) -> SchemaVersion | None:
        """The schema behind an id of a header, None if nobody has published it."""

    def newest(self, name: str) -> SchemaVersion:
        """The newest version that ships with the package: the shape in which readers take record `name`."""


def canonical_sha256(text: str) -> str:
    """Hex SHA-256 of a schema's parsing canonical form (Avro specification), so that `doc` may be improved."""
    return hashlib.sha256(to_parsing_canonical_form(json.loads(text)).encode()).hexdigest()


class BundledRegistry:
    """The schemas that ship with the package, with the ids of the lock file.

    Raises RegistryError when a schema file differs from what the lock says was published.
    """

    def __init__(self, avro: Traversable = AVRO, lock_file: Traversable = LOCK) -> None:
        lock: Mapping[str, Any] = json.loads(lock_file.read_text())
        self._by_id: dict[int, SchemaVersion] = {}
        self._latest: dict[str, SchemaVersion] = {}
        for key, entry in lock.items():
            name, _, version = key.rpartition("/v")
            text = (avro / name / f"v{version}.avsc").read_text()
            if canonical_sha256(text) != entry["sha256"]:
                raise RegistryError(f"{key} was published and has changed since; add v{int(version) + 1}.avsc instead")
            found = SchemaVersion(name=name, version=int(version), schema_id=entry["id"], text=text)
            self._by_id[found.schema_id] = found
            if name not in self._latest or self._latest[name].version < found.version:
                self._latest[name] = found

    def latest(self, name: str) -> SchemaVersion:
        if name not in self._latest:
            raise RegistryError(f"no record {name!r} is locked; known: {', '.join(sorted(self._latest))}")
        return self._latest[name]

    def by_id(self, schema_id: int) -> SchemaVersion | None:
        return self._by_id.get(schema_id)

    def newest(self, name: str) -> SchemaVersion:
        return self.latest(name)

    def all(self) -> list[SchemaVersion]:
        """Every published version, by id."""
        return [self._by_id[i] for i in sorted(self._by_id)]


class HttpRegistry:
    """A Confluent-compatible registry. Our schemas are looked up by their text under the subject `meshyard.<record>`,
    and registered when the registry does not have them yet and lets us.
    """

    def __init__(self, url: str, *, bundled: BundledRegistry, timeout_seconds: float = 10.0) -> None:
        import httpx  # only installations with a registry of their own need it here

        self._client = httpx.Client(base_url=url.rstrip("/") + "/", timeout=timeout_seconds)
        self._bundled = bundled
        self._latest: dict[str, SchemaVersion] = {}
        self._by_id: dict[int, SchemaVersion | None] = {}

    def latest(self, name: str) -> SchemaVersion:
        if name not in self._latest:
            ours = self._bundled.latest(name)
            body = {"schemaType": "AVRO", "schema": ours.text}
            subject = f"subjects/meshyard.{name}"
            answer = self._call("POST", subject, body)
            if answer is None:
                answer = self._call("POST", f"{subject}/versions", body)
            if answer is None or "id" not in answer:
                raise RegistryError(f"record {name}: neither found nor accepted under subject meshyard.{name}")
            found = SchemaVersion(name=name, version=ours.version, schema_id=int(answer["id"]), text=ours.text)
            self._latest[name] = found
            self._by_id[found.schema_id] = found
        return self._latest[name]

    def by_id(self, schema_id: int) -> SchemaVersion | None:
        if schema_id > MAX_SCHEMA_ID:
            return None
        if schema_id not in self._by_id:
            if len(self._by_id) >= MAX_CACHED_IDS:  # strangers choose the ids; only a few can be ours
                self._by_id.clear()
            answer = self._call("GET", f"schemas/ids/{schema_id}", None)
            self._by_id[schema_id] = None if answer is None else self._ours(schema_id, answer)
        return self._by_id[schema_id]

    def newest(self, name: str) -> SchemaVersion:
        return self._bundled.latest(name)

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    def _ours(self, schema_id: int, answer: Mapping[str, Any]) -> SchemaVersion | None:
        """The bundled version that a registry's schema is, None if it is somebody else's."""
        try:
            wanted = canonical_sha256(answer["schema"])
        except Exception:  # a Protobuf or JSON schema of another team: as foreign to us as an unknown id
            return None
        for ours in self._bundled.all():
            if canonical_sha256(ours.text) == wanted:
                return SchemaVersion(name=ours.name, version=ours.version, schema_id=schema_id, text=ours.text)
        return None

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None) -> dict[str, Any] | None:
        import httpx

        try:
            answer = self._client.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise RegistryError(f"{self._client.base_url}{path}: {error}") from error
        if answer.status_code == 404:
            return None
        if answer.status_code >= 400:
            raise RegistryError(f"{self._client.base_url}{path}: HTTP {answer.status_code}")
        try:
            found: dict[str, Any] = answer.json()
        except ValueError as error:
            raise RegistryError(f"{self._client.base_url}{path}: the answer is no JSON") from error
        return found


@functools.cache
def bundled() -> BundledRegistry:
    """The process's one BundledRegistry."""
    return BundledRegistry()


def registry_from_url(url: str | None) -> Registry:
    """The registry at `url`, or the bundled ids when there is none."""
    return HttpRegistry(url, bundled=bundled()) if url else bundled()
