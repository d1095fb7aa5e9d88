"""Downloads out of the object store, and the schema registry as plain producers see it."""

import contextlib
import hashlib
from pathlib import Path

import httpx
import pytest

from schemas.registry import HttpRegistry, bundled
from streams.objects import ObjectStore
from tests.integration.gateway.counterpart import Counterpart
from tests.integration.gateway.process import GatewayProcess, wait_for
from tests.integration.gateway.test_jobs import make, state_of

BIG = bytes(range(256)) * 8192


@pytest.fixture
def job_with_assets(client: httpx.Client, counterpart: Counterpart, gateway: GatewayProcess, tmp_path: Path) -> str:
    store = ObjectStore(f"file://{gateway.data_dir}/objects")
    job_id = make(client)

    def artefact(stage: str, role: str, data: bytes, media_type: str) -> dict[str, object]:
        path = tmp_path / f"{stage}-{role}"
        path.write_bytes(data)
        stored = store.put_file(f"{job_id}/{stage}/1", path, media_type)
        return {
            "role": role,
            "uri": stored.uri,
            "sha256": stored.sha256,
            "bytes": stored.bytes,
            "media_type": stored.media_type,
        }

    foreign = {"role": "odd", "uri": "s3://elsewhere/x", "sha256": "0", "bytes": 1, "media_type": "a\r\nb: c"}
    gone = {
        "role": "lost",
        "uri": store.uri(f"{job_id}/none"),
        "sha256": "1",
        "bytes": 1,
        "media_type": "x/y",
    }
    counterpart.run_job(
        job_id,
        {
            "generate": [artefact("generate", "preview", b"early", "image/png"), foreign, gone],
            "texture": [
                artefact("texture", "glb", BIG, "model/gltf-binary"),
                artefact("texture", "preview", b"late", "image/png"),
            ],
        },
    )
    wait_for(lambda: state_of(client, job_id) == "succeeded", "the end")
    return job_id


def test_assets_are_listed_and_downloaded(client: httpx.Client, job_with_assets: str) -> None:
    listed = client.get(f"/v1/jobs/{job_with_assets}/assets").json()["assets"]
    assert [asset["name"] for asset in listed] == [
        "model.glb",
        "preview.png",
        "generate/preview",
        "generate/odd",
        "generate/lost",
        "texture/glb",
        "texture/preview",
    ]
    model = client.get(listed[0]["url"])
    assert model.content == BIG
    assert model.headers["content-length"] == str(len(BIG)) == str(listed[0]["bytes"])
    assert model.headers["content-type"] == "model/gltf-binary"
    assert model.headers["content-disposition"] == 'attachment; filename="model.glb"'
    assert model.headers["x-content-type-options"] == "nosniff"
    assert model.headers["etag"] == f'"{hashlib.sha256(BIG).hexdigest()}"'
    again = client.get(listed[0]["url"], headers={"if-none-match": model.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get(listed[1]["url"]).content == b"late"
    early = client.get(listed[2]["url"])
    assert early.content == b"early"
    assert early.headers["content-disposition"] == 'attachment; filename="generate-preview.png"'


def test_parts_of_an_asset_can_be_had(client: httpx.Client, job_with_assets: str) -> None:
    url = f"/v1/jobs/{job_with_assets}/assets/model.glb"
    etag = client.get(url).headers["etag"]
    size = len(BIG)
    for asked, start, end in (
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        (f"bytes={size - 5}-", size - 5, size),
        ("bytes=-7", size - 7, size),
        (f"bytes=5-{size * 2}", 5, size),
        (f"bytes=-{size * 2}", 0, size),
    ):
        part = client.get(url, headers={"range": asked, "if-range": etag})
        assert (part.status_code, part.content) == (206, BIG[start:end]), asked
        assert part.headers["content-range"] == f"bytes {start}-{end - 1}/{size}"
        assert part.headers["content-length"] == str(end - start)
    for ignored in ("bytes=0-1,5-6", "items=0-1", "bytes=-", "bytes=5-4", "bytes=a-b", "bytes=" + "9" * 40 + "-"):
        assert client.get(url, headers={"range": ignored}).content == BIG
    assert client.get(url, headers={"range": "bytes=0-1", "if-range": '"another"'}).content == BIG
    for outside in (f"bytes={size}-", "bytes=-0"):
        refused = client.get(url, headers={"range": outside})
        assert (refused.status_code, refused.json()["code"]) == (416, "range_not_satisfiable")
        assert refused.headers["content-range"] == f"bytes */{size}"


def test_assets_that_cannot_be_had_say_why(client: httpx.Client, job_with_assets: str) -> None:
    base = f"/v1/jobs/{job_with_assets}/assets"
    assert client.get(f"{base}/generate/lost").json()["code"] == "asset_gone"
    assert client.get(f"{base}/generate/odd").json()["code"] == "asset_unreachable"
    assert client.get(f"{base}/none.glb").json()["code"] == "not_found"


def test_plain_producers_find_our_schemas(gateway: GatewayProcess) -> None:
    ours = bundled().latest("job_requested")
    subject = "requests.text-to-3d-value"
    described = {
        "subject": subject,
        "id": ours.schema_id,
        "version": ours.version,
        "schemaType": "AVRO",
        "schema": ours.text,
    }
    body = {"schema": ours.text, "schemaType": "AVRO"}
    kind = {"content-type": "application/vnd.schemaregistry.v1+json"}
    with httpx.Client(base_url=f"{gateway.url}/registry", headers=kind) as registry:
        assert {subject, "meshyard.job_requested", "jobs.events-value"} <= set(registry.get("/subjects").json())
        assert registry.get(f"/subjects/{subject}/versions").json() == list(range(1, ours.version + 1))
        assert registry.get(f"/subjects/{subject}/versions/{ours.version}").json() == described
        assert registry.get(f"/subjects/{subject}/versions/latest").json() == described
        assert registry.get(f"/schemas/ids/{ours.schema_id}").json() == {"schema": ours.text}
        assert registry.post(f"/subjects/{subject}", json=body).json() == described
        assert registry.post(f"/subjects/{subject}/versions", json=body).json() == {"id": ours.schema_id}


def test_our_own_registry_client_reads_it(gateway: GatewayProcess) -> None:
    registry = HttpRegistry(f"{gateway.url}/registry", bundled=bundled())
    with contextlib.closing(registry._client):
        for version in bundled().all():
            assert registry.latest(version.name) == bundled().latest(version.name)
            assert registry.by_id(version.schema_id) == version
        assert registry.by_id(999) is None


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/subjects/none/versions", None, 404, 40401),
        ("GET", "/subjects/meshyard.tenant/versions/9", None, 404, 40402),
        ("GET", "/subjects/meshyard.tenant/versions/x", None, 422, 42202),
        ("GET", "/schemas/ids/999", None, 404, 40403),
        ("GET", "/schemas/ids/-1", None, 404, 40403),
        ("POST", "/subjects/meshyard.tenant", {"schema": '"string"'}, 404, 40403),
        ("POST", "/subjects/meshyard.tenant", {"schema": "{"}, 422, 42201),
        ("POST", "/subjects/meshyard.tenant", {"schema": "[" * 60000}, 422, 42201),
        ("POST", "/subjects/meshyard.tenant/versions", {"schema": '"string"'}, 403, 42205),
    ],
)
def test_the_registrys_errors_are_confluents(
    gateway: GatewayProcess, method: str, path: str, body: object, status: int, code: int
) -> None:
    answer = httpx.request(method, f"{gateway.url}/registry{path}", json=body)
    assert (answer.status_code, answer.json()["error_code"]) == (status, code)
