"""The command line's HTTP client against a small server on loopback."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from gateway.cli import api as api_module
from gateway.cli.api import Api, parse_events
from gateway.cli.errors import ApiError, CommandError
from gateway.cli.target import Target

JOB = {"id": "1", "state": "running", "progress": 10.0}
DONE = {"id": "1", "state": "succeeded", "progress": 100.0}


def event(name: str, data: dict[str, Any], event_id: str | None = None) -> str:
    head = f"event: {name}\n" + (f"id: {event_id}\n" if event_id else "")
    return f"{head}data: {json.dumps(data)}\n\n"


class Gateway(ThreadingHTTPServer):
    """Answers with what the test prepared; a body None closes the connection without an answer."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: list[tuple[int, str, str | None]] = []
        self.seen: list[tuple[str, dict[str, str]]] = []

    def api(self) -> Api:
        return Api(Target(url=f"http://127.0.0.1:{self.server_port}", key="my_key"))


class _Handler(BaseHTTPRequestHandler):
    server: Gateway

    def do_GET(self) -> None:
        self.server.seen.append((self.path, dict(self.headers)))
        status, kind, body = self.server.answers.pop(0)
        if body is None:
            self.close_connection = True
            return
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(body.encode())
        self.close_connection = True

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    monkeypatch.setattr(api_module, "RETRY_SECONDS", 0.0)
    with Gateway() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_events_are_followed_over_a_gateway_that_went_away(gateway: Gateway) -> None:
    stream = "text/event-stream"
    gateway.answers = [
        (200, stream, event("job.started", JOB, "0-5") + ": still here\n\n" + event("job.progress", JOB)),
        (200, stream, None),
        (200, stream, event("job.succeeded", DONE, "0-9")),
    ]
    with gateway.api() as api:
        events = list(api.events("1"))
    assert events == [("job.started", JOB), ("job.progress", JOB), ("job.succeeded", DONE)]
    assert [headers.get("Last-Event-ID") for _, headers in gateway.seen] == [None, "0-5", "0-5"]
    assert {headers["Authorization"] for _, headers in gateway.seen} == {"Bearer my_key"}


def test_a_gateway_that_stays_away_is_told(gateway: Gateway) -> None:
    gateway.answers = [(200, "", None)] * 2
    with gateway.api() as api, pytest.raises(CommandError, match="does not answer"):
        list(api.events("1", give_up_seconds=-1.0))


def test_a_gateway_that_starts_or_is_away_is_asked_again_with_the_same_key(gateway: Gateway) -> None:
    job = json.dumps(JOB)
    gateway.answers = [(503, "", "{}"), (200, "", None), (202, "application/json", job)]
    target = Target(url=f"http://127.0.0.1:{gateway.server_port}", key="my_key", patience_seconds=30.0)
    with Api(target) as api:
        assert api.submit({"prompt": "a chair"}) == JOB
    assert len({headers["Idempotency-Key"] for _, headers in gateway.seen}) == 1
    assert len(gateway.seen) == 3


def test_a_problem_becomes_one_line(gateway: Gateway) -> None:
    problem = {"code": "rate_limited", "detail": "too many requests", "suggestion": "wait 3 s"}
    gateway.answers = [(429, "application/problem+json", json.dumps(problem))]
    with gateway.api() as api, pytest.raises(ApiError, match="429 rate_limited: too many requests; wait 3 s") as caught:
        api.submit({"prompt": "a chair"})
    assert (caught.value.status, caught.value.code) == (429, "rate_limited")


@pytest.mark.parametrize("body", ["<html>bad gateway</html>", "[]", '"text"'])
def test_an_answer_that_is_no_problem_is_an_error_all_the_same(gateway: Gateway, body: str) -> None:
    gateway.answers = [(502, "text/html", body)]
    with gateway.api() as api, pytest.raises(ApiError, match="502"):
        api.job("1")


def test_a_file_is_there_whole_or_not_at_all(gateway: Gateway, tmp_path: Path) -> None:
    file = tmp_path / "model.glb"
    gateway.answers = [(404, "application/problem+json", "{}"), (200, "model/gltf-binary", "glTF")]
    with gateway.api() as api:
        with pytest.raises(ApiError):
            api.download("1", "model.glb", file)
        assert list(tmp_path.iterdir()) == []
        assert api.download("1", "model.glb", file) == 4
    assert list(tmp_path.iterdir()) == [file]


def test_lines_of_an_event_stream_are_read_as_the_standard_says() -> None:
    lines = [
        "data:{",
        "data: }",
        "id:7",
        "",
        ": comment",
        "",
        "event: x",
        "",
        "unknown: field",
        "event: y",
        "data: {}",
        "",
    ]
    assert list(parse_events(iter(lines))) == [("message", "7", {}), ("y", None, {})]
