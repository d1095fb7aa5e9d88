"""Problem documents after RFC 9457."""

import json

import pytest

from gateway.problems import KINDS, MEDIA_TYPE, Problem, unavailable


@pytest.mark.parametrize("code", KINDS)
def test_every_kind_makes_a_whole_document(code: str) -> None:
    answer = Problem(code, "what", "remedy", field="seed", headers={"x-a": "b"}).response("the-id")
    assert answer.status_code == KINDS[code].status
    assert answer.headers["content-type"] == MEDIA_TYPE
    assert answer.headers["x-a"] == "b"
    assert json.loads(bytes(answer.body)) == {
        "type": f"urn:meshyard:problem:{code}",
        "title": KINDS[code].title,
        "status": KINDS[code].status,
        "detail": "what",
        "code": code,
        "retryable": KINDS[code].retryable,
        "suggestion": "remedy",
        "request_id": "the-id",
        "field": "seed",
    }


def test_retryable_follows_the_status() -> None:
    for kind in KINDS.values():
        assert kind.retryable == (kind.status in (408, 429) or kind.status >= 500)


def test_a_503_says_when_to_come_again() -> None:
    assert unavailable("overloaded", "x", retry_after_seconds=5).headers == {"retry-after": "5"}
