"""What strangers may send: each gets its 4xx, nothing of it reaches the log, and the gateway goes on."""

import contextlib
import gzip
import json
import socket
from collections.abc import Iterator

import httpx
import psutil
import pytest

from tests.integration.gateway.counterpart import Counterpart
from tests.integration.gateway.process import GatewayProcess
from tests.integration.gateway.test_jobs import make

JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("content", "headers", "status", "code"),
    [
        (b"x" * (64 * 1024 + 1), JSON, 413, "body_too_large"),
        (b"[" * 60_000, JSON, 400, "invalid_json"),
        (b'{"a":' * 10_000, JSON, 400, "invalid_json"),
        (b'{"workflow": "text-to-3d", "seed": NaN}', JSON, 400, "invalid_json"),
        (b'{"workflow": "text-to-3d", "prompt": "x", "seed": 1e400}', JSON, 422, "invalid_request"),
        (b'{"seed": ' + b"9" * 5000 + b"}", JSON, 400, "invalid_json"),
        (b'{"workflow": "a", "workflow": "b"}', JSON, 400, "invalid_json"),
        (b'{"workflow": "text-to-3d", "prompt": "\\ud800"}', JSON, 422, "invalid_request"),
        (b"\xff\xfe", JSON, 400, "invalid_json"),
        (b"", JSON, 400, "invalid_json"),
        (b"null", JSON, 422, "invalid_request"),
        (b"{}", {"content-type": "text/xml"}, 415, "unsupported_media_type"),
        (
            gzip.compress(b"0" * 10_000_000),
            {**JSON, "content-encoding": "gzip"},
            415,
            "unsupported_media_type",
        ),
        (b"{}", {**JSON, "idempotency-key": "x" * 201}, 400, "invalid_header"),
        (b"{}", {**JSON, "idempotency-key": ""}, 400, "invalid_header"),
        (b"{}", {**JSON, "idempotency-key": b"caf\xc3\xa9"}, 400, "invalid_header"),
        (b"{}", {**JSON, **{f"x-{n}": "y" for n in range(200)}}, 431, "too_many_headers"),
        (b"{}", {**JSON, "x-long": "y" * 40_000}, 431, "too_many_headers"),
    ],
)
def test_bad_requests_are_refused(
    client: httpx.Client, content: bytes, headers: dict[str, str | bytes], status: int, code: str
) -> None:
    given = [(k.encode(), v if isinstance(v, bytes) else v.encode()) for k, v in headers.items()]
    answer = client.post("/v1/jobs", content=content, headers=given)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json()["suggestion"]


def test_a_body_without_end_is_cut_off(client: httpx.Client) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while True:
            sent += 1024
            yield b" " * 1024

    # The answer comes while the body is still being sent, and then the connection is closed.
    with contextlib.suppress(httpx.TransportError):
        assert client.post("/v1/jobs", content=endless(), headers=JSON).status_code == 413
    assert sent < 64 * 1024 * 1024


def test_unknown_paths_and_methods_are_problems(client: httpx.Client) -> None:
    for method, path, status, code in (
        ("GET", "/", 404, "not_found"),
        ("GET", "/v1/unknown", 404, "not_found"),
        ("DELETE", "/v1/jobs", 405, "method_not_allowed"),
        ("GET", "/v1/jobs/", 404, "not_found"),
        ("GET", "/v1/jobs/not-a-uuid", 404, "not_found"),
    ):
        answer = client.request(method, path)
        assert (answer.status_code, answer.json()["code"]) == (status, code), path
        assert answer.headers["content-type"] == "application/problem+json"


def test_line_breaks_in_headers_do_not_split_answers(gateway: GatewayProcess) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port)) as raw:
        raw.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-request-id: a\rset-cookie: b\r\n\r\n")
        answer = raw.recv(4096)
    assert b"set-cookie" not in answer


def test_a_slow_body_times_out_and_blocks_nobody(client: httpx.Client, gateway: GatewayProcess) -> None:
    key = client.headers["authorization"].encode()
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as slow:
        slow.sendall(
            b"POST /v1/jobs HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\nauthorization: " + key + b"\r\n\r\n{"
        )
        make(client)  # while the slow one is still being waited for
        assert b"408" in slow.recv(4096).split(b"\r\n", 1)[0]


def test_neither_prompts_nor_keys_are_logged(
    client: httpx.Client, gateway: GatewayProcess, counterpart: Counterpart
) -> None:
    make(client, prompt="canary-prompt-zqxw")
    client.post("/v1/jobs", json={"workflow": "canary-workflow-zqxw", "prompt": "canary-prompt-zqxw"})
    client.get("/v1/jobs?cursor=canary-query-zqxw", headers={"last-event-id": "canary-header-zqxw"})
    client.get("/canary-path-zqxw")
    log = gateway.log.read_text()
    assert '"route": "/v1/jobs"' in log
    assert "zqxw" not in log
    assert client.headers["authorization"].removeprefix("Bearer ")[12:] not in log
    for line in log.splitlines():
        json.loads(line)


def test_the_gateway_is_still_small(client: httpx.Client, gateway: GatewayProcess) -> None:
    assert gateway.child is not None
    for _ in range(20):
        client.post("/v1/jobs", content=b"[" * 60_000, headers=JSON)
    assert psutil.Process(gateway.child.pid).memory_info().rss < 200 * 1024 * 1024
