"""Domains and the policy file, as the environment gives them."""

from pathlib import Path

import pytest

from streams.kafka.settings import SettingsError
from streams.policy.config import DEFAULT, PolicyError
from streams.settings import StreamsSettings, read_policy

ENV = {
    "MESHYARD_KAFKA_BOOTSTRAP": "127.0.0.1:9",
    "MESHYARD_OBJECTS_URL": "file:///objects",
    "MESHYARD_TRUST_TOPIC": "1",
}


def settings(**env: str) -> StreamsSettings:
    return StreamsSettings.from_env({**ENV, **env})


def test_one_domain_schedules_everything() -> None:
    found = settings(MESHYARD_DOMAIN="eu")
    assert found.kafka.every_domain == ("eu",)
    assert found.domain_for("synthetic") == "eu"


def test_the_first_of_several_takes_what_no_rule_names() -> None:
    env = {"MESHYARD_DOMAINS": "main, eu", "MESHYARD_DOMAIN_OF": "synthetic=eu"}
    for domain in ("main", "eu"):  # whichever of them a role serves
        found = settings(**env, MESHYARD_DOMAIN=domain)
        assert found.kafka.domain == domain
        assert found.kafka.every_domain == ("main", "eu")
        assert (found.domain_for("synthetic"), found.domain_for("assembly")) == ("eu", "main")
    assert settings(**env).kafka.domain == "main"


@pytest.mark.parametrize(
    ("env", "variable"),
    [
        ({"MESHYARD_DOMAINS": "main,Eu"}, "MESHYARD_DOMAINS"),
        ({"MESHYARD_DOMAINS": "main", "MESHYARD_DOMAIN": "eu"}, "MESHYARD_DOMAINS"),
        ({"MESHYARD_DOMAINS": "main", "MESHYARD_DOMAIN_OF": "synthetic=eu"}, "MESHYARD_DOMAIN_OF"),
        ({"MESHYARD_DOMAIN_OF": "nothing=main"}, "MESHYARD_DOMAIN_OF"),
        ({"MESHYARD_DOMAIN_OF": "synthetic"}, "MESHYARD_DOMAIN_OF"),
    ],
)
def test_what_is_wrong_is_named(env: dict[str, str], variable: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings(**env)
    assert caught.value.variable == variable


def test_the_policy_file_is_read_or_refused(tmp_path: Path) -> None:
    assert read_policy(None) is DEFAULT
    file = tmp_path / "policy.toml"
    with pytest.raises(SettingsError, match="MESHYARD_POLICY_FILE"):
        read_policy(file)
    file.write_text("[lanes]\nbatch = 50\n")
    assert read_policy(file).lanes["batch"] == 50
    file.write_text("[lanes]\nbatch = -1\n")
    with pytest.raises(PolicyError, match=r"lanes\.batch"):
        read_policy(file)
