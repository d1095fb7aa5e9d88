"""Where the stack keeps things, and the secrets that it makes once."""

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from gateway.supervisor.errors import StackPortTakenError
from streams.kafka.settings import KafkaSettings, SettingsError, domain_map, domains_from, positive_int
from streams.local import ports
from streams.local.files import read_json, try_lock, write_json
from streams.local.settings import default_cache_dir
from streams.settings import read_policy

GATEWAY_PORT: Final = 8080
CLICKHOUSE_USER: Final = "meshyard"


def default_data_dir(env: Mapping[str, str] = os.environ) -> Path:
    """Where a stack lives when nothing else is said: `MESHYARD_STACK_DIR`, else `~/.local/share/meshyard`."""
    chosen = env.get("MESHYARD_STACK_DIR")
    if chosen:
        return Path(chosen).expanduser().absolute()
    base = env.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "meshyard"


@dataclass(frozen=True, kw_only=True)
class StackSettings:
    """What `meshyard up` is told. slots: workers with the built-in model; synthetic_slots: workers without torch;
    capacity: tasks that each of the latter takes at once; policy_file: the scheduling policy, None for the built-in
    one; gateway_port: None takes the one used before, 8080, or a free one; domains, domain_of: scheduling domains, the
    first for all pipelines that domain_of does not name."""

    data_dir: Path
    cache_dir: Path
    slots: int = 1
    synthetic_slots: int = 0
    gateway_port: int | None = None
    user_partitions: int = 4
    capacity: int = 1
    policy_file: Path | None = None
    domains: tuple[str, ...] = ("main",)
    domain_of: Mapping[str, str] = field(default_factory=dict)

    def domain_for(self, pipeline_id: str) -> str:
        """The domain that schedules a pipeline's jobs."""
        return self.domain_of.get(pipeline_id, self.domains[0])

    def kafka(self, bootstrap: str) -> KafkaSettings:
        """How the stack's own tools reach its broker."""
        return KafkaSettings(
            bootstrap=bootstrap,
            user_partitions=self.user_partitions,
            domain=self.domains[0],
            domains=self.domains,
        )

    @classmethod
    def from_env(
        cls,
        data_dir: Path | None,
        *,
        slots: int,
        synthetic_slots: int,
        capacity: int = 1,
        policy_file: Path | None = None,
        env: Mapping[str, str] = os.environ,
    ) -> "StackSettings":
        """Settings with the rest from MESHYARD_CACHE_DIR, _GATEWAY_PORT, _USER_PARTITIONS, _POLICY_FILE, _DOMAINS and
        _DOMAIN_OF; a policy_file that is given wins. Raises SettingsError, PolicyError."""
        port = env.get("MESHYARD_GATEWAY_PORT")
        if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
            raise SettingsError("MESHYARD_GATEWAY_PORT", f"{port!r} is no port; give a number from 1 to 65535")
        domain, domains = domains_from(env)
        every = KafkaSettings(bootstrap="", domain=domain, domains=domains).every_domain
        named_file = env.get("MESHYARD_POLICY_FILE")
        policy = policy_file or (Path(named_file) if named_file else None)
        read_policy(policy)
        return cls(
            data_dir=(data_dir or default_data_dir(env)).expanduser().absolute(),
            cache_dir=default_cache_dir(env),
            slots=slots,
            synthetic_slots=synthetic_slots,
            gateway_port=int(port) if port else None,
            user_partitions=positive_int(env, "MESHYARD_USER_PARTITIONS", 4),
            capacity=capacity,
            policy_file=policy.expanduser().absolute() if policy else None,
            domains=every,
            domain_of=domain_map(env, every),
        )


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The directories and files of one stack."""

    root: Path

    @property
    def logs(self) -> Path:
        """A log file for each role."""
        return self.root / "logs"

    @property
    def key_file(self) -> Path:
        """The API key of the user `local`."""
        return self.root / "secrets" / "local.key"

    @property
    def server_key_file(self) -> Path:
        """The gateway's HMAC key, in hex."""
        return self.root / "secrets" / "server.key"

    @property
    def clickhouse_password_file(self) -> Path:
        """The password of the embedded ClickHouse."""
        return self.root / "secrets" / "clickhouse.password"

    @property
    def clickhouse_url_file(self) -> Path:
        """The address of ClickHouse, its password included."""
        return self.root / "secrets" / "clickhouse.url"

    @property
    def objects_url(self) -> str:
        """The object store: a directory."""
        return f"file://{self.root / 'objects'}"

    def role_dir(self, name: str) -> Path:
        """Private files of a role."""
        return self.root / name

    def log_file(self, name: str) -> Path:
        """Where a role's output goes."""
        return self.logs / f"{name}.log"

    def make(self) -> None:
        """Make the directories and the secrets that are not there yet."""
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        for folder in (self.logs, self.root / "objects"):
            folder.mkdir(exist_ok=True)
        self.key_file.parent.mkdir(exist_ok=True, mode=0o700)
        for file in (self.server_key_file, self.clickhouse_password_file):
            if not file.exists():
                write_secret(file, secrets.token_hex(32))


def write_secret(file: Path, text: str) -> None:
    """Write a file that only its owner may read, in one step."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as out:
        out.write(text + "\n")
    os.replace(temporary, file)


@dataclass(frozen=True, kw_only=True)
class Ports:
    """The ports of the roles that listen, the broker's aside (it keeps its own).

    claims: descriptors of lock files, one for each port; while they are open, no other stack of this user takes the
    port, even when the role that shall listen there has not started yet or starts again.
    """

    gateway: int
    clickhouse: int
    claims: tuple[int, ...] = ()

    @classmethod
    def choose(cls, root: Path, claims_dir: Path, asked_gateway: int | None) -> "Ports":
        """The asked port, else those used before, else 8080 and free ones; kept in `ports.json`.

        Raises StackPortTakenError when the asked port is taken.
        """
        claims_dir.mkdir(parents=True, exist_ok=True)
        kept = read_json(root / "ports.json")
        wanted: list[object] = [kept.get("gateway"), GATEWAY_PORT] if asked_gateway is None else [asked_gateway]
        gateway = _claim_first(wanted, claims_dir, or_any=asked_gateway is None)
        if gateway is None:
            raise StackPortTakenError(asked_gateway or 0, ports.holder(asked_gateway or 0))
        clickhouse = _claim_first([kept.get("clickhouse")], claims_dir, or_any=True)
        assert clickhouse is not None
        write_json(root / "ports.json", {"gateway": gateway[0], "clickhouse": clickhouse[0]})
        return cls(gateway=gateway[0], clickhouse=clickhouse[0], claims=(gateway[1], clickhouse[1]))

    def release(self) -> None:
        """Let other stacks have the ports."""
        for descriptor in self.claims:
            os.close(descriptor)


def _claim_first(wanted: list[object], claims_dir: Path, *, or_any: bool) -> tuple[int, int] | None:
    """The first port that is free and not claimed, with its claim; None when there is none and any will not do."""
    tries = (ports.free_port() for _ in range(100)) if or_any else ()
    for port in (*wanted, *tries):
        if not isinstance(port, int) or not ports.is_free(port):
            continue
        claim = try_lock(claims_dir / f"{port}.lock")
        if claim is not None:
            return port, claim
    return None
