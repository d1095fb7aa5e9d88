"""Nobody reaches another user's jobs, on any route; nobody without a valid key reaches any."""

from pathlib import Path

import httpx
import pytest

from gateway.app import create_app
from gateway.keys import new_api_key
from gateway.services import Services
from gateway.settings import GatewaySettings
from schemas.jobs import Transition
from streams.kafka.settings import KafkaSettings
from tests.integration.gateway.conftest import known_client
from tests.integration.gateway.counterpart import Counterpart, now_ms
from tests.integration.gateway.process import GatewayProcess, frames, wait_for
from tests.integration.gateway.test_jobs import make, state_of


def routes(tmp_path: Path) -> list[tuple[str, str]]:
    """Method and path of every route of the application."""
    settings = GatewaySettings(
        kafka=KafkaSettings(bootstrap="127.0.0.1:1"),
        data_dir=tmp_path,
        objects_url=f"file://{tmp_path}",
        server_key=bytes(32),
    )
    found = []
    for route in create_app(Services(settings)).routes:
        found += [(method, route.path) for method in sorted(route.methods - {"HEAD"})]  # type: ignore[attr-defined]
    return found


PUBLIC = ("/healthz", "/readyz", "/registry/")


def test_every_route_answers_404_for_foreign_jobs(
    client: httpx.Client, gateway: GatewayProcess, counterpart: Counterpart, tmp_path: Path
) -> None:
    job_id = make(client)
    artefact = {
        "role": "glb",
        "uri": f"file://{gateway.data_dir}/objects/x",
        "sha256": "0",
        "bytes": 1,
        "media_type": "model/gltf-binary",
    }
    counterpart.run_job(job_id, {"texture": [artefact]})
    wait_for(lambda: state_of(client, job_id) == "succeeded", "the end")
    walked = 0
    with known_client(gateway, counterpart.tenant("intruder")) as intruder:
        for method, path in routes(tmp_path):
            if "{job_id}" not in path:
                continue
            target = path.replace("{job_id}", job_id).replace("{name:path}", "model.glb")
            foreign = intruder.request(method, target)
            unknown = intruder.request(method, target.replace(job_id, "00000000-0000-4000-8000-000000000000"))
            assert foreign.status_code == 404, (method, path)
            own = {k: v for k, v in foreign.json().items() if k != "request_id"}
            assert own == {k: v for k, v in unknown.json().items() if k != "request_id"}
            walked += 1
        assert intruder.get("/v1/jobs").json()["jobs"] == []
    assert walked == 6


def test_every_route_but_the_public_ones_needs_a_key(gateway: GatewayProcess, tmp_path: Path) -> None:
    other, _ = new_api_key()
    with httpx.Client(base_url=gateway.url) as client:
        for method, path in routes(tmp_path):
            for authorization in (
                None,
                f"Bearer {other}",
                "Basic abc",
                "Bearer",
                f"Bearer {other}x",
                "Bearer my_é",
            ):
                headers = [] if authorization is None else [(b"authorization", authorization.encode())]
                answer = client.request(method, path.replace("{name:path}", "x"), headers=headers)
                if path.startswith(PUBLIC):
                    assert answer.status_code != 401
                else:
                    assert answer.status_code == 401, (method, path)
                    assert answer.headers["www-authenticate"] == "Bearer"
                    assert answer.json()["code"] in ("missing_key", "invalid_key")


def test_the_user_of_a_request_comes_from_the_key_alone(client: httpx.Client) -> None:
    body = {"workflow": "text-to-3d", "prompt": "a stool", "user_id": "somebody-else"}
    answer = client.post("/v1/jobs", json=body)
    assert (answer.status_code, answer.json()["field"]) == (422, "user_id")


def test_a_foreign_request_for_the_same_job_id_changes_nothing(
    client: httpx.Client, gateway: GatewayProcess, counterpart: Counterpart
) -> None:
    job_id = make(client)
    counterpart.event(job_id, Transition.STARTED, stage="generate", attempt=1)
    forged = {**counterpart.requests[job_id], "user_id": "forger", "prompt": "mine"}
    with known_client(gateway, counterpart.tenant("forger")) as forger:
        counterpart.request("forger", forged)
        wait_for(lambda: forger.get(f"/v1/jobs/{job_id}").status_code == 200, "the forger's own row")
        assert forger.get(f"/v1/jobs/{job_id}").json()["state"] == "submitted"
    assert state_of(client, job_id) == "running"


def test_a_revoked_key_ends_its_open_streams(gateway: GatewayProcess, counterpart: Counterpart, user_id: str) -> None:
    text, key = new_api_key()
    counterpart.put_tenant(user_id, [key])
    with known_client(gateway, text) as client:
        job_id = make(client)
        with frames(client, job_id) as stream:
            assert next(stream).event == "job.queued"
            counterpart.put_tenant(user_id, [{**key, "revoked_at": now_ms()}])
            assert list(stream) == []
        assert client.get("/v1/jobs").json()["code"] == "invalid_key"


@pytest.mark.parametrize("name", ["../model.glb", "..%2f..%2fetc/passwd", "model.glb/", "%00", "generate/../x"])
def test_names_of_assets_are_no_paths(client: httpx.Client, name: str) -> None:
    job_id = make(client)
    answer = client.get(f"/v1/jobs/{job_id}/assets/{name}")
    assert answer.status_code == 404
