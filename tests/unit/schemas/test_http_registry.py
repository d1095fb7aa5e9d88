"""HttpRegistry against a server of the Confluent REST API, over a real socket."""

import json
import struct
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from schemas import errors
from schemas.codec import Codec
from schemas.errors import RegistryError
from schemas.registry import HttpRegistry, bundled
from tests.unit.schemas.examples import each_record, load

FIRST_ID = 40_001


class RegistryServer(ThreadingHTTPServer):
    """A schema registry: ids count from 40,001, so they never happen to be the bundled ones."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.schemas: dict[int, dict[str, Any]] = {}
        self.subjects: dict[str, dict[str, int]] = {}
        self.calls: list[str] = []
        self.read_only = False
        self.garbage: tuple[int, bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def publish(self, body: dict[str, Any]) -> int:
        """Gives a schema an id, as POST /subjects/{s}/versions does."""
        schema_id = FIRST_ID + len(self.schemas)
        self.schemas[schema_id] = body
        return schema_id


class _Handler(BaseHTTPRequestHandler):
    server: RegistryServer

    def do_GET(self) -> None:
        self.server.calls.append(f"GET {self.path}")
        found = self.server.schemas.get(int(self.path.rsplit("/", 1)[1]))
        if found is None:
            self._answer(404, {"error_code": 40403, "message": "Schema not found"})
        else:
            self._answer(200, {"schema": found["schema"]} | ({} if "schemaType" not in found else found))

    def do_POST(self) -> None:
        self.server.calls.append(f"POST {self.path}")
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        _, _, subject, *versions = self.path.split("/")
        known = self.server.subjects.get(subject, {})
        if versions and self.server.read_only:
            self._answer(405, {"error_code": 405, "message": "read-only"})
        elif versions:
            known = self.server.subjects.setdefault(subject, {})
            known[body["schema"]] = self.server.publish({"schema": body["schema"]})
            self._answer(200, {"id": known[body["schema"]]})
        elif body["schema"] in known:
            answer = {"subject": subject, "version": 1, "id": known[body["schema"]], "schema": body["schema"]}
            self._answer(200, answer)
        else:
            self._answer(404, {"error_code": 40401 if not known else 40403, "message": "not found"})

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        if self.server.garbage is not None:
            status, data = self.server.garbage
        self.send_response(status)
        self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
        """The server's calls are kept in `calls`."""


@pytest.fixture
def server() -> Iterator[RegistryServer]:
    with RegistryServer() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def registry(server: RegistryServer) -> Iterator[HttpRegistry]:
    found = HttpRegistry(server.url, bundled=bundled())
    yield found
    found.close()


@each_record
def test_a_record_written_with_the_registrys_ids_is_read_with_them(
    server: RegistryServer, registry: HttpRegistry, record: str
) -> None:
    codec = Codec(registry)
    data = codec.encode(record, load(record, "full"))
    assert struct.unpack_from(">I", data, 1)[0] >= FIRST_ID
    reader = HttpRegistry(server.url, bundled=bundled())
    assert Codec(reader).decode_strict(data, record) == load(record, "full")
    reader.close()


def test_an_unknown_schema_is_registered_once_and_then_looked_up(
    server: RegistryServer, registry: HttpRegistry
) -> None:
    first = registry.latest("command")
    assert server.calls == ["POST /subjects/meshyard.command", "POST /subjects/meshyard.command/versions"]
    assert registry.latest("command") == first
    assert registry.by_id(first.schema_id) == first
    assert len(server.calls) == 2
    other = HttpRegistry(server.url, bundled=bundled())
    assert other.latest("command") == first
    other.close()
    assert server.calls[2:] == ["POST /subjects/meshyard.command"]


def test_a_registry_that_lets_nobody_register(server: RegistryServer, registry: HttpRegistry) -> None:
    server.read_only = True
    with pytest.raises(RegistryError, match=r"subjects/meshyard\.command/versions: HTTP 405"):
        registry.latest("command")


def test_an_unknown_id_is_asked_for_once(server: RegistryServer, registry: HttpRegistry) -> None:
    data = b"\x00\x00\x00\x10\x00junk"
    for _ in range(3):
        with pytest.raises(errors.UnknownSchemaId) as caught:
            Codec(registry).decode(data)
        assert caught.value.schema_id == 4096
    assert server.calls == ["GET /schemas/ids/4096"]


def test_an_id_that_no_registry_can_have_is_not_asked_for(server: RegistryServer, registry: HttpRegistry) -> None:
    with pytest.raises(errors.UnknownSchemaId):
        Codec(registry).decode(b"\x00\xff\xff\xff\xffjunk")
    assert server.calls == []


FOREIGN = {
    "another Avro record": {"schema": '{"type":"record","name":"Theirs","fields":[{"name":"a","type":"int"}]}'},
    "a Protobuf schema": {"schema": 'syntax = "proto3"; message Theirs {}', "schemaType": "PROTOBUF"},
    "a JSON schema": {"schema": '{"type":"object","properties":{}}', "schemaType": "JSON"},
    "a broken schema": {"schema": "{"},
}


@pytest.mark.parametrize("case", FOREIGN)
def test_another_teams_schema_is_an_unknown_id(server: RegistryServer, registry: HttpRegistry, case: str) -> None:
    schema_id = server.publish(FOREIGN[case])
    with pytest.raises(errors.UnknownSchemaId):
        Codec(registry).decode_strict(struct.pack(">bI", 0, schema_id) + b"\x02")


def test_our_schema_is_recognised_however_it_is_spelt(server: RegistryServer, registry: HttpRegistry) -> None:
    ours = json.loads(bundled().latest("command").text)
    del ours["doc"]
    schema_id = server.publish({"schema": json.dumps(ours, separators=(",", ":"))})
    found = registry.by_id(schema_id)
    assert found is not None
    assert (found.name, found.schema_id) == ("command", schema_id)


@pytest.mark.parametrize(
    ("garbage", "expected"),
    [
        ((500, b"oops"), "HTTP 500"),
        ((401, b"{}"), "HTTP 401"),
        ((200, b"<html>a proxy's page</html>"), "no JSON"),
        ((200, b"{}"), "neither found nor accepted"),
    ],
)
def test_a_registry_that_answers_nonsense(
    server: RegistryServer, registry: HttpRegistry, garbage: tuple[int, bytes], expected: str
) -> None:
    server.garbage = garbage
    with pytest.raises(RegistryError, match=expected):
        registry.latest("command")


def test_a_registry_that_is_not_there(server: RegistryServer) -> None:
    server.server_close()
    registry = HttpRegistry(server.url, bundled=bundled(), timeout_seconds=1.0)
    with pytest.raises(RegistryError, match=r"127\.0\.0\.1"):
        registry.by_id(1)
    registry.close()
