"""Waiting for admission's answers, and noticing that none come."""

import asyncio

from gateway.answers import LAG_REQUESTS, LAG_SECONDS, PROBE_SECONDS, AnswerLag, Answers


def lagging(now: float = 100.0) -> AnswerLag:
    lag = AnswerLag()
    for n in range(LAG_REQUESTS):
        lag.missed(now - LAG_SECONDS + n / 100)
    return lag


def test_it_takes_enough_requests_and_enough_time() -> None:
    lag = AnswerLag()
    for n in range(LAG_REQUESTS - 1):
        lag.missed(n / 100)
    assert not lag.lagging(1_000.0)
    lag.missed(1.0)
    assert not lag.lagging(LAG_SECONDS - 0.1)
    assert lag.lagging(LAG_SECONDS)


def test_one_answer_ends_it() -> None:
    lag = lagging()
    assert lag.lagging(100.0)
    lag.answered()
    assert not lag.lagging(100.0)
    assert lag.admit(100.0)


def test_one_request_a_second_probes() -> None:
    lag = lagging()
    admitted = [n for n in range(40) if lag.admit(100.0 + n * PROBE_SECONDS / 10)]
    assert admitted == [0, 10, 20, 30]


def test_an_answer_finds_its_request() -> None:
    async def scenario() -> None:
        answers = Answers(timeout_seconds=30)
        first, second = answers.expect("a"), answers.expect("b")
        answers.settle([{"request_id": "b", "n": 2}, {"request_id": "another gateway's"}, {"request_id": "a", "n": 1}])
        answers.settle([{"request_id": "a", "n": 3}])  # a repeat
        assert await answers.wait(first) == {"request_id": "a", "n": 1}
        assert await answers.wait(second) == {"request_id": "b", "n": 2}
        answers.forget("a")
        answers.settle([{"request_id": "a"}])

    asyncio.run(scenario())


def test_no_answer_is_none() -> None:
    async def scenario() -> None:
        answers = Answers(timeout_seconds=0)
        future = answers.expect("a")
        assert await answers.wait(future) is None
        answers.settle([{"request_id": "a"}])  # too late: nobody minds

    asyncio.run(scenario())
