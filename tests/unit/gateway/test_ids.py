"""Job ids, seeds, signatures, trace contexts."""

import hashlib
import hmac
import uuid

import pytest

from gateway import ids

KEY = bytes(32)


def test_a_job_id_is_a_function_of_user_and_key() -> None:
    first = ids.job_id(KEY, "ada", "order-1")
    assert first == ids.job_id(KEY, "ada", "order-1")
    others = [
        ids.job_id(KEY, "eve", "order-1"),
        ids.job_id(KEY, "ada", "order-2"),
        ids.job_id(bytes(31) + b"\1", "ada", "order-1"),
        ids.job_id(KEY, "ada", None),
        ids.job_id(KEY, "ada", None),
    ]
    assert len({first, *others}) == 6
    assert all(ids.is_job_id(found) for found in (first, *others))
    assert (uuid.UUID(first).version, uuid.UUID(first).variant) == (8, uuid.RFC_4122)


def test_user_and_key_cannot_be_shifted_into_each_other() -> None:
    assert ids.job_id(KEY, "ada", "bc") != ids.job_id(KEY, "adab", "c")


@pytest.mark.parametrize("text", ["", "x", "5F1C2D1E-3B0A-4A58-9D55-6F5C6F0C1A2B", "5f1c2d1e3b0a4a589d556f5c6f0c1a2b"])
def test_what_is_no_job_id(text: str) -> None:
    assert not ids.is_job_id(text)


def test_a_derived_seed_repeats() -> None:
    assert ids.derived_seed("a") == ids.derived_seed("a") != ids.derived_seed("b")
    assert 0 <= ids.derived_seed("a") < 2**32


def test_the_signature_is_an_hmac_of_the_value() -> None:
    expected = hmac.new(KEY, b"value", hashlib.sha256).hexdigest()
    assert ids.signature(KEY, b"value") == f"gateway:{expected}".encode()


def test_a_trace_goes_on_only_when_it_is_well_formed() -> None:
    good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    assert ids.traceparent(good) == good
    for bad in (
        None,
        "",
        "x",
        good.upper(),
        good + "\n",
        good.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32),
    ):
        made = ids.traceparent(bad)
        assert made != bad
        assert ids.traceparent(made) == made
