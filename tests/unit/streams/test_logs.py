"""What a client repeats many times a second is logged once in a while."""

import logging

from streams.logs import Sparing


def record(text: str, at: float) -> logging.LogRecord:
    made = logging.LogRecord("librdkafka", logging.ERROR, "", 0, text, None, None)
    made.created = at
    return made


def test_repeats_are_held_back_whatever_their_numbers_say() -> None:
    sparing = Sparing(5.0)
    texts = [(f"FAIL [thrd:{n}]: Connect to 127.0.0.1 failed (after {n}ms)", n * 0.05) for n in range(200)]
    assert sum(sparing.filter(record(text, at)) for text, at in texts) == 2


def test_other_texts_pass() -> None:
    sparing = Sparing(5.0)
    assert sparing.filter(record("one", 0.0))
    assert sparing.filter(record("two", 0.0))
    assert not sparing.filter(record("one", 4.9))
    assert sparing.filter(record("one", 5.0))
