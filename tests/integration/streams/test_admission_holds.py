"""Held jobs on a real broker: released on time, once, whatever dies; and every limit as its sender sees it."""

import itertools
import statistics
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from schemas.codec import Codec, Record
from schemas.topics import LOAD, USERS_CLOSED, catalogue
from streams.kafka.admin import create_topics
from streams.kafka.settings import KafkaSettings
from tests.integration.streams.admission_upstream import Upstream, now_ms
from tests.support.roles import Role, wait_until

StartRole = Callable[..., Role]


def answered(upstream: Upstream, *requests: Record) -> list[Record]:
    """Sends requests and gives their answers."""
    for request in requests:
        upstream.send(request)
    upstream.producer.flush(10)
    wanted = {request["request_id"] for request in requests}
    wait_until(lambda: {a["request_id"] for a in upstream.answers()} >= wanted, "the requests were answered")
    found = {answer["request_id"]: answer for answer in upstream.answers()}
    return [found[request["request_id"]] for request in requests]


def test_held_jobs_survive_kills_and_go_on_once(
    settings: KafkaSettings, codec: Codec, start_role: StartRole
) -> None:  # fmt: skip
    """400 jobs are due over some seconds in which the process is killed twice."""
    upstream = Upstream(settings, codec)
    upstream.tenant()
    admission = start_role("streams", "admission")
    wait_until(partial(_role_started, admission, 1), "it runs")
    begun = now_ms() + 6_000
    requests = [upstream.request(run_at=begun + 40 * n) for n in range(400)]
    answers = answered(upstream, *requests)
    assert [answer["held_until"] for answer in answers] == [request["run_at"] for request in requests]
    for count in (40, 250):
        wait_until(partial(_released_over, upstream, count), "some were released")
        admission.kill()
        admission.start()
    wait_until(partial(_released_over, upstream, 399), "all were released")
    told = upstream.told()
    due = {request["job_id"]: request["run_at"] for request in requests}
    for at, entry in upstream.inbox():
        if entry["kind"] == "stage_ready":
            assert at >= due[entry["ready"]["job_id"]]
            assert entry["at"] >= due[entry["ready"]["job_id"]]
    assert all(told[job_id] == ["held", "queued"] for job_id in due)
    # A repeat after a crash says the same, so that the scheduler sees one.
    readies: dict[str, set[str]] = {}
    for _, entry in upstream.inbox():
        if entry["kind"] == "stage_ready":
            readies.setdefault(entry["ready"]["job_id"], set()).add(repr(entry))
    assert {len(copies) for copies in readies.values()} == {1}
    assert admission.stop() == 0


def _released_over(upstream: Upstream, count: int) -> bool:
    return len(upstream.released()) > count


def test_debounce_cancel_and_commands_of_held_jobs(
    settings: KafkaSettings, codec: Codec, start_role: StartRole
) -> None:  # fmt: skip
    upstream = Upstream(settings, codec)
    upstream.tenant()
    admission = start_role("streams", "admission")
    wait_until(partial(_role_started, admission, 1), "it runs")
    old, new = (upstream.request(debounce_key="a", debounce_seconds=1.5, seed=seed) for seed in (1, 2))
    canceled, paused, urgent = (upstream.request(run_at=now_ms() + 8_000) for _ in range(3))
    answered(upstream, old, new, canceled, paused, urgent)
    upstream.command("cancel", canceled["job_id"])
    upstream.command("pause", paused["job_id"])
    upstream.command("reprioritise", urgent["job_id"], priority=1)
    wait_until(lambda: len(upstream.released()) == 2, "the others were released")
    assert set(upstream.released()) == {new["job_id"], urgent["job_id"]}
    kinds = [entry["kind"] for _, entry in upstream.inbox()]
    assert "cancel" not in kinds
    assert "control" not in kinds
    priorities = {e["ready"]["job_id"]: e["ready"]["priority"] for _, e in upstream.inbox() if e["ready"]}
    assert priorities == {new["job_id"]: 3, urgent["job_id"]: 1}
    ends = {e["job_id"]: e["error_class"] for e in upstream.events() if e["transition"] == "canceled"}
    assert ends == {old["job_id"]: "superseded", canceled["job_id"]: None}
    upstream.command("resume", "")
    wait_until(lambda: paused["job_id"] in upstream.released(), "the paused one was released")
    wait_until(lambda: "control" in [entry["kind"] for _, entry in upstream.inbox()], "the scheduler heard of it too")


def test_who_waits_for_a_token_is_released_in_order(
    settings: KafkaSettings, codec: Codec, start_role: StartRole
) -> None:  # fmt: skip
    upstream = Upstream(settings, codec)
    upstream.tenant(requests_per_minute=240.0, burst_requests=1)
    start_role("streams", "admission")
    requests = [upstream.request(on_limit="wait") for _ in range(5)]
    refused = upstream.request()
    answers = answered(upstream, *requests, refused)
    dues = [answer["held_until"] for answer in answers[1:5]]
    assert answers[0]["held_until"] is None
    assert [round(b - a) for a, b in itertools.pairwise(dues)] == pytest.approx([250] * 3, abs=2)
    assert (answers[5]["limit"], answers[5]["code"]) == ("requests", "rate_limit")
    assert answers[5]["retry_after_ms"] > 1_000
    wait_until(lambda: len(upstream.released()) == 5, "all were released")
    order = [entry["ready"]["job_id"] for _, entry in upstream.inbox() if entry["ready"]]
    assert order == [request["job_id"] for request in requests]


def test_a_keys_own_bucket_and_the_backlog(settings: KafkaSettings, codec: Codec, start_role: StartRole) -> None:
    upstream = Upstream(settings, codec)
    key = {"key_id": "k1", "sha256": "0" * 64, "created_at": 1, "revoked_at": None}
    upstream.tenant(keys=[{**key, "requests_per_minute": 6.0, "burst_requests": 2}], max_backlog=3)
    admission = start_role("streams", "admission")
    requests = [upstream.request(key_id="k1") for _ in range(3)] + [upstream.request() for _ in range(2)]
    limits = [answer["limit"] for answer in answered(upstream, *requests)]
    assert limits == [None, None, "key_requests", None, "backlog"]
    closed = {"user_id": upstream.user, "job_ids": [requests[0]["job_id"], str(uuid.uuid4())], "at": now_ms()}
    for _ in range(2):
        upstream.send_to(USERS_CLOSED, "user_closed", closed)
    upstream.producer.flush(10)
    admission.stop()
    admission.start()  # the count is in the rows, and the end is not counted twice
    last = [upstream.request() for _ in range(2)]
    wait_until(partial(_role_started, admission, 2), "it is back")
    assert [answer["limit"] for answer in answered(upstream, *last)] == [None, "backlog"]


def _role_started(role: Role, times: int) -> bool:
    return role.log().count('"role_started"') == times


def test_an_overloaded_domain_refuses_what_its_report_says(
    settings: KafkaSettings, codec: Codec, start_role: StartRole
) -> None:  # fmt: skip
    upstream, free = Upstream(settings, codec), Upstream(settings, codec)
    upstream.tenant()
    start_role("streams", "admission")
    answered(upstream, upstream.request())

    def report(level: int) -> None:
        load: dict[str, Any] = {
            "domain": settings.domain, "virtual_time": 0.0, "queued_tasks": 0, "running_tasks": 0, "live_slots": 0,
            "queued_gpu_seconds": 0.0, "backlog": [], "at": now_ms(), "level": level, "retry_after_seconds": 42.0,
            "refused_tiers": ["free"], "refused_lanes": ["batch"],
        }  # fmt: skip
        upstream.producer.produce(LOAD, key=settings.domain, value=codec.encode("domain_load", load))
        upstream.producer.flush(10)

    def refused(who: Upstream, **changes: Any) -> bool:
        report(3)
        [answer] = answered(who, who.request(**changes))
        if answer["limit"] is None:
            return False
        assert (answer["code"], answer["limit"], answer["retry_after_ms"]) == ("overloaded", "load", 42_000)
        return True

    wait_until(lambda: refused(free), "users of the free tier are refused")
    assert refused(upstream, lane="batch")
    assert not refused(upstream)
    report(2)
    wait_until(lambda: answered(free, free.request())[0]["limit"] is None, "they are taken again")


def test_each_pipelines_jobs_go_to_its_domain(
    settings: KafkaSettings, codec: Codec, start_role: StartRole
) -> None:  # fmt: skip
    other = f"{settings.domain}-b"
    create_topics(settings, catalogue(domains=(other,)))
    upstream = Upstream(settings, codec)
    start_role(
        "streams", "admission", MESHYARD_DOMAINS=f"{settings.domain},{other}",
        MESHYARD_DOMAIN_OF=f"synthetic={other}",
    )  # fmt: skip
    upstream.tenant(scopes=["jobs", "synthetic"])
    shares = partial(_kinds, upstream, "tenant_changed")
    wait_until(lambda: shares(settings.domain) == shares(other) == 1, "both schedulers know the user")
    here, there, held = (
        upstream.request(),
        upstream.request(pipeline_id="synthetic", prompt=None),
        upstream.request(pipeline_id="synthetic", prompt=None, run_at=now_ms() + 3_000),
    )
    answered(upstream, here, there, held)
    wait_until(lambda: len(upstream.released(other)) == 2, "the held one was released")
    assert set(upstream.released()) == {here["job_id"]}
    assert set(upstream.released(other)) == {there["job_id"], held["job_id"]}
    for job_id in (here["job_id"], there["job_id"], str(uuid.uuid4())):
        upstream.command("cancel", job_id)
    cancels = partial(_kinds, upstream, "cancel")
    wait_until(lambda: cancels(settings.domain) == cancels(other) == 2, "each was told of its own and of the unknown")


def _kinds(upstream: Upstream, kind: str, domain: str) -> int:
    return sum(entry["kind"] == kind for _, entry in upstream.inbox(domain))


@pytest.mark.bench
def test_ten_thousand_held_jobs_are_released_on_time(
    settings: KafkaSettings, codec: Codec, start_role: StartRole
) -> None:  # fmt: skip
    """10,000 are held while 1,500 of them become due over 15 s: how late their records come to the inbox."""
    upstream = Upstream(settings, codec)
    upstream.tenant()
    admission = start_role("streams", "admission")
    wait_until(partial(_role_started, admission, 1), "it runs")
    begun = now_ms() + 45_000
    due = [upstream.request(run_at=begun + 10 * n) for n in range(1_500)]
    rest = [upstream.request(run_at=begun + 3_600_000) for _ in range(8_500)]
    answered(upstream, *rest, *due)
    assert now_ms() < begun
    wait_until(lambda: now_ms() > begun + 15_500, "their time has come", 90)  # nobody reads along meanwhile
    wait_until(lambda: len(upstream.released()) == 1_500, "they were released")
    dues = {request["job_id"]: request["run_at"] for request in due}
    late = sorted(at - dues[entry["ready"]["job_id"]] for at, entry in upstream.inbox() if entry["ready"])
    p50, p99 = statistics.median(late), late[int(len(late) * 0.99)]
    print(f"\nlateness of held jobs: p50 {p50:g} ms, p99 {p99} ms, greatest {late[-1]} ms")
    assert late[0] >= 0
    assert p99 < 500
