"""Shards of admission on a real broker, and another number of them with jobs that are held meanwhile."""

from collections import Counter
from collections.abc import Callable

import pytest

from gateway.cli.__main__ import main
from schemas.codec import Codec, Record
from schemas.topics import PLATFORM_EVENTS
from streams.agents.admission_shards import ShardsAlive, committed, resize
from streams.kafka.consumer import end_offset, read_range
from streams.kafka.settings import KafkaSettings
from tests.integration.streams.admission_upstream import Upstream, now_ms
from tests.support.roles import Role, wait_until

StartRole = Callable[..., Role]
USERS = 12


def test_held_jobs_and_keys_outlive_other_numbers_of_shards(
    settings: KafkaSettings, codec: Codec, start_role: StartRole, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1 -> 2 -> 1: each request is decided once, each held job released once and not before its time."""
    monkeypatch.setenv("MESHYARD_KAFKA_BOOTSTRAP", settings.bootstrap)
    monkeypatch.setenv("MESHYARD_DOMAIN", settings.domain)
    upstream = [Upstream(settings, codec) for _ in range(USERS)]
    begun = now_ms()
    # One job a user is due while there are two shards, one when there is one again.
    first = [(one, one.request(run_at=begun + 25_000)) for one in upstream]
    later = [(one, one.request(run_at=begun + 50_000)) for one in upstream]
    one_shard = start_role("streams", "admission")
    _submit([*first, *later])
    assert one_shard.stop() == 0
    wrong = start_role("streams", "admission", "--shard", "0/2", MESHYARD_USER_PARTITIONS="4")
    assert wrong.process is not None
    assert wrong.process.wait(60) != 0
    assert "meshyard shards resize 2 --from 1" in wrong.log()

    told = end_offset(settings, PLATFORM_EVENTS, 0)
    assert main(["shards", "resize", "2", "--from", "1", "--reason", "test"]) == 0
    # The transaction's marker is written a moment after its commit.
    wait_until(lambda: bool(_shards_events(settings, codec, told)), "the change was told")
    assert _shards_events(settings, codec, told) == [{"from": "1", "to": "2", "reason": "test"}]
    assert committed(settings, 2) == committed(settings, 1)
    two_shards = [start_role("streams", "admission", "--shard", f"{n}/2") for n in (0, 1)]
    repeated = [(one, {**job, "request_id": f"again-{job['job_id']}"}) for one, job in first]
    fresh = [(one, one.request()) for one in upstream]
    _submit([*repeated, *fresh])
    assert {one.answer(job)["outcome"] for one, job in repeated} == {"duplicate"}  # type: ignore[index]
    wait_until(lambda: all(one.released()[job["job_id"]] for one, job in first), "the first ones were released")
    assert [shard.stop() for shard in two_shards] == [0, 0]

    resize(settings, 2, 1)
    again = start_role("streams", "admission")
    wait_until(lambda: all(one.released()[job["job_id"]] for one, job in later), "the later ones were released")
    for one, job in [*first, *later]:
        released = [at for at, entry in one.inbox() if entry["ready"] and entry["ready"]["job_id"] == job["job_id"]]
        assert len(released) == 1
        assert released[0] >= job["run_at"]
        assert one.told()[job["job_id"]] == ["held", "queued"]
    for one in upstream:
        assert set(Counter(a["request_id"] for a in one.answers()).values()) == {1}
    assert again.stop() == 0


def _submit(requests: list[tuple[Upstream, Record]]) -> None:
    for one, request in requests:
        one.send(request)
    for one, _ in requests:
        one.producer.flush(10)
    wait_until(lambda: all(one.answer(request) is not None for one, request in requests), "all were answered")


def _shards_events(settings: KafkaSettings, codec: Codec, start: int) -> list[dict[str, str]]:
    end = end_offset(settings, PLATFORM_EVENTS, 0)
    values = [message.value() for message in read_range(settings, PLATFORM_EVENTS, 0, start=start, end=end)]
    events = [codec.decode(value) for value in values if isinstance(value, bytes)]
    return [
        {name: event["detail"][name] for name in ("from", "to", "reason")}
        for event in events
        if event["kind"] == "shards"
    ]


def test_shards_are_not_moved_while_one_lives(
    settings: KafkaSettings, codec: Codec, start_role: StartRole
) -> None:  # fmt: skip
    upstream = Upstream(settings, codec)
    start_role("streams", "admission")
    _submit([(upstream, upstream.request())])
    with pytest.raises(ShardsAlive, match="still have members: meshyard-admission-0-of-1"):
        resize(settings, 1, 2, patience_seconds=1.0)


@pytest.mark.parametrize(
    ("new", "old", "field"), [("0", "1", "N"), ("1", "1", "N"), ("99", "1", "N"), ("1", "0", "--from")]
)
def test_numbers_that_make_no_sense(
    new: str, old: str, field: str, settings: KafkaSettings, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("MESHYARD_KAFKA_BOOTSTRAP", settings.bootstrap)
    assert main(["shards", "resize", new, "--from", old]) == 2
    assert f"{field}:" in capsys.readouterr().err
