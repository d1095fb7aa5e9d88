"""API keys and who they belong to."""

import pytest

from gateway.auth import TenantDirectory
from gateway.keys import key_digest, key_id_of, new_api_key
from gateway.problems import Problem
from schemas.codec import Codec, Record


def tenant(user_id: str, *keys: Record, scopes: tuple[str, ...] = ("jobs",)) -> Record:
    record = {
        "user_id": user_id,
        "tier": "pro",
        "weight": 4.0,
        "requests_per_minute": 600.0,
        "burst_requests": 10,
        "scopes": list(scopes),
        "keys": list(keys),
        "updated_at": 1,
    }
    codec = Codec()
    return codec.decode(codec.encode("tenant", record), "tenant")


def code_of(directory: TenantDirectory, authorization: str | None, now_ms: int = 0) -> str:
    with pytest.raises(Problem) as caught:
        directory.authenticate(authorization, now_ms)
    assert caught.value.kind.status == 401
    return caught.value.code


def test_a_key_has_its_form_and_only_its_hash_is_kept() -> None:
    text, record = new_api_key()
    assert key_id_of(text) == record["key_id"]
    assert record["sha256"] == key_digest(text)
    assert len(text) == 3 + 8 + 1 + 43
    assert text.split("_", 2)[2] not in str(record)
    assert new_api_key()[0] != text


@pytest.mark.parametrize("text", ["", "my", "my_12345678_", "my_1234_" + "x" * 43, "xx_12345678_" + "x" * 43, "my_é"])
def test_what_is_no_key_has_no_id(text: str) -> None:
    assert key_id_of(text) is None


def test_a_key_names_its_user_and_scopes() -> None:
    directory = TenantDirectory()
    text, key = new_api_key()
    directory.apply("ada", tenant("ada", key, scopes=("jobs", "synthetic")))
    found = directory.authenticate(f"Bearer {text}", 0)
    assert (found.user_id, found.key_id) == ("ada", key["key_id"])
    assert found.scopes == {"jobs", "synthetic"}
    assert directory.authenticate(f"bearer  {text} ", 0) == found


def test_other_texts_are_refused() -> None:
    directory = TenantDirectory()
    text, key = new_api_key()
    directory.apply("ada", tenant("ada", key))
    assert code_of(directory, None) == code_of(directory, "") == "missing_key"
    # The right id with another secret, too.
    swapped = text[:-1] + ("A" if text[-1] != "A" else "B")
    for wrong in (swapped, text[:-1], text + "x", "", "my_é"):
        assert code_of(directory, f"Bearer {wrong}") == "invalid_key"
    assert code_of(directory, f"Basic {text}") == code_of(directory, text) == "invalid_key"


def test_two_users_keys_with_the_same_id_are_told_apart() -> None:
    directory = TenantDirectory()
    (one, first), (two, second) = new_api_key(), new_api_key()
    two = two.replace(second["key_id"], first["key_id"])
    second = {**second, "key_id": first["key_id"], "sha256": key_digest(two)}
    directory.apply("ada", tenant("ada", first))
    directory.apply("eve", tenant("eve", second))
    assert directory.authenticate(f"Bearer {one}", 0).user_id == "ada"
    assert directory.authenticate(f"Bearer {two}", 0).user_id == "eve"
    directory.apply("ada", None)
    assert code_of(directory, f"Bearer {one}") == "invalid_key"
    assert directory.authenticate(f"Bearer {two}", 0).user_id == "eve"


def test_revoked_and_removed_keys_end() -> None:
    directory = TenantDirectory()
    text, key = new_api_key()
    directory.apply("ada", tenant("ada", {**key, "revoked_at": 100}))
    principal = directory.authenticate(f"Bearer {text}", 99)
    assert directory.still_valid(principal, 99)
    assert not directory.still_valid(principal, 100)
    assert code_of(directory, f"Bearer {text}", 100) == "invalid_key"
    directory.apply("ada", tenant("ada"))
    assert code_of(directory, f"Bearer {text}", 0) == "invalid_key"
    assert not directory.still_valid(principal, 0)
