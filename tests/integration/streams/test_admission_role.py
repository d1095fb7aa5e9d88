"""Admission's process on a real broker: nothing is lost when it dies under load, poison, signatures, limits."""

import hashlib
import hmac
import secrets
import threading
import uuid
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

from schemas.codec import Codec, Record
from schemas.topics import ADMISSION_JOBS_CHANGELOG
from streams.kafka.consumer import read_all
from streams.kafka.settings import KafkaSettings
from tests.integration.streams.admission_upstream import Upstream
from tests.support.roles import Role, wait_until

StartRole = Callable[..., Role]


def test_nothing_is_lost_when_it_dies_under_load(settings: KafkaSettings, codec: Codec, start_role: StartRole) -> None:
    """Requests keep coming while the process is killed and recovers; each is decided, each decision once by its id."""
    upstream = Upstream(settings, codec)
    upstream.tenant()
    stop = threading.Event()
    sent: list[str] = []

    def feed() -> None:
        while not stop.is_set():
            request = upstream.request()
            upstream.send(request)
            sent.append(request["job_id"])
            stop.wait(0.01)

    feeder = threading.Thread(target=feed)
    feeder.start()
    admission = start_role("streams", "admission")
    try:
        for life in range(1, 4):
            wait_until(partial(started, admission, life), "admission started")
            wait_until(partial(longer_than, sent, len(sent) + 50), "more requests came")
            if life < 3:
                admission.kill()
                admission.start()
    finally:
        stop.set()
        feeder.join()
    upstream.producer.flush(10)
    wait_until(lambda: {e["job_id"] for e in upstream.events()} >= set(sent), "every request was decided", 30)
    events = {event["event_id"]: event for event in upstream.events()}.values()
    assert Counter(event["job_id"] for event in events) == Counter(sent)
    assert {event["transition"] for event in events} == {"queued"}
    assert "RecordsDropped" not in admission.log()
    assert admission.stop() == 0


def started(role: Role, times: int) -> bool:
    return role.log().count('"role_started"') == times


def longer_than(items: list[str], count: int) -> bool:
    return len(items) > count


def test_poison_beside_good_requests(settings: KafkaSettings, codec: Codec, start_role: StartRole) -> None:
    """Each poison record is buried with its reason; the good request behind them is served."""
    upstream = Upstream(settings, codec)
    upstream.tenant()
    start_role("streams", "admission")
    good = codec.encode("job_requested", upstream.request())
    for value in (b"", b"{}", good[:-1], good + b"x", b"\x00\x00\x00\xff\xff", codec.encode("tenant", tenant_like())):
        upstream.send_bytes(value, key=upstream.user)
    upstream.send(upstream.request(job_id="7"))
    last = upstream.request()
    upstream.send(last)
    upstream.producer.flush(10)
    wait_until(lambda: last["job_id"] in {e["job_id"] for e in upstream.events()}, "the good request was served")
    assert upstream.dead() == [
        "empty", "wrong_magic_byte", "truncated", "trailing_bytes", "unknown_schema_id", "unexpected_schema",
        "job_id_invalid",
    ]  # fmt: skip


def tenant_like() -> Record:
    return {
        "user_id": "x", "tier": "pro", "weight": 1.0, "requests_per_minute": 1.0, "burst_requests": 1, "scopes": [],
        "keys": [], "updated_at": 1,
    }  # fmt: skip


def test_another_users_name_is_refused(settings: KafkaSettings, codec: Codec, start_role: StartRole) -> None:
    upstream = Upstream(settings, codec)
    start_role("streams", "admission")
    upstream.send(upstream.request(user_id="someone-else"), key=upstream.user)
    upstream.send(upstream.request())
    upstream.producer.flush(10)
    wait_until(lambda: len(upstream.events()) == 1, "the honest request was served")
    assert upstream.dead() == ["user_id_invalid"]


def test_the_limit_is_one_for_all_ways_and_exact(settings: KafkaSettings, codec: Codec, start_role: StartRole) -> None:
    upstream = Upstream(settings, codec)
    upstream.tenant(requests_per_minute=1.0, burst_requests=3)
    start_role("streams", "admission")
    repeated = upstream.request()
    for request in (repeated, upstream.request(), repeated, upstream.request(), upstream.request()):
        upstream.send({**request, "request_id": str(uuid.uuid4())})
    upstream.producer.flush(10)
    wait_until(lambda: len(upstream.answers()) == 5, "every request was answered")
    outcomes = [answer["outcome"] for answer in upstream.answers()]
    assert outcomes == ["accepted", "accepted", "duplicate", "accepted", "rejected"]
    refused = upstream.answers()[-1]
    assert refused["code"] == "rate_limit"
    assert 58_000 < refused["retry_after_ms"] <= 60_000


def test_untrusted_topics_need_a_signature(
    settings: KafkaSettings, codec: Codec, start_role: StartRole, tmp_path: Path
) -> None:
    upstream = Upstream(settings, codec)
    key = f"my_{secrets.token_hex(4)}_{secrets.token_urlsafe(32)}"
    digest = hashlib.sha256(key.encode())
    name = key.split("_")[1]
    api_key = {"key_id": name, "sha256": digest.hexdigest(), "created_at": 1, "revoked_at": None}
    upstream.tenant(keys=[api_key])
    server_key = tmp_path / "server.key"
    server_key.write_text(secrets.token_hex(32))
    start_role("streams", "admission", MESHYARD_TRUST_TOPIC="0", MESHYARD_SERVER_KEY_FILE=str(server_key))
    bare, forged, signed, by_gateway = (upstream.request() for _ in range(4))
    upstream.send(bare)
    upstream.send(forged, headers=[("meshyard-signature", f"{name}:{'0' * 64}".encode())])
    for request, who, secret in (
        (signed, name, digest.digest()),
        (by_gateway, "gateway", bytes.fromhex(server_key.read_text())),
    ):
        value = codec.encode("job_requested", request)
        mark = hmac.digest(secret, value, "sha256").hex()
        upstream.send(request, headers=[("meshyard-signature", f"{who}:{mark}".encode())])
    upstream.producer.flush(10)
    wait_until(lambda: len(upstream.answers()) == 4, "every request was answered")
    by_request = {a["request_id"]: a["outcome"] for a in upstream.answers()}
    assert [by_request[r["request_id"]] for r in (bare, forged, signed, by_gateway)] == [
        "rejected", "rejected", "accepted", "accepted",
    ]  # fmt: skip


def test_rows_of_an_older_version_are_deleted(
    settings: KafkaSettings, codec: Codec, start_role: StartRole
) -> None:  # fmt: skip
    """Version 0.1 kept a JSON row a job in the same changelog."""
    upstream = Upstream(settings, codec)
    key, row = f"{upstream.user}/1", b'{"fingerprint": "ab", "source": ["requests.text-to-3d", 0, 5], "at_ms": 1}'
    upstream.producer.produce(ADMISSION_JOBS_CHANGELOG, key=key, value=row, partition=1)
    upstream.producer.flush(10)
    start_role("streams", "admission")

    def values() -> list[object]:
        rows = read_all(settings, ADMISSION_JOBS_CHANGELOG, [1])
        return [message.value() for message in rows if message.key() == key.encode()]

    wait_until(lambda: values()[-1] is None, "the row was deleted")
