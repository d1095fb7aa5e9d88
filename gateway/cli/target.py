"""Which installation a command talks to: `--url` and `--key-file`, or the stack that runs on this machine."""

import argparse
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gateway.cli.errors import CommandError, UsageError

LOCAL_PATIENCE_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where requests go and the key that goes with them.

    patience_seconds: how long to go on when nobody answers; a stack that is known to run brings its gateway back.
    """

    url: str
    key: str = field(repr=False)
    patience_seconds: float = 0.0


def add_data_dir(parser: argparse.ArgumentParser) -> None:
    """`--data-dir` of the local stack."""
    parser.add_argument(
        "--data-dir",
        type=Path,
        metavar="DIR",
        help="the local stack's directory (default: MESHYARD_STACK_DIR, else ~/.local/share/meshyard)",
    )


def add_target(parser: argparse.ArgumentParser) -> None:
    """`--url`, `--key-file` and `--data-dir`."""
    parser.add_argument("--url", help="a gateway's address (default: MESHYARD_URL, else the local stack's)")
    parser.add_argument(
        "--key-file", type=Path, help="the file with your API key (default: MESHYARD_KEY_FILE, else the stack's)"
    )
    add_data_dir(parser)


def data_dir_of(arguments: argparse.Namespace) -> Path:
    """The local stack's directory."""
    from gateway.supervisor.layout import default_data_dir

    chosen: Path | None = arguments.data_dir
    return (chosen or default_data_dir()).expanduser().absolute()


def find_target(arguments: argparse.Namespace, env: Mapping[str, str] = os.environ) -> Target:
    """The gateway and key to use. Raises CommandError when no stack runs, UsageError when a key is missing."""
    url: str | None = arguments.url or env.get("MESHYARD_URL")
    key_file: Path | None = arguments.key_file
    if key_file is None and env.get("MESHYARD_KEY_FILE"):
        key_file = Path(env["MESHYARD_KEY_FILE"])
    patience_seconds = 0.0
    if url is None or key_file is None:
        from gateway.supervisor.state import running

        data_dir = data_dir_of(arguments)
        stack = running(data_dir)
        if stack is None:
            if url is not None:
                raise UsageError("--key-file", "not given; name the file that holds your API key")
            raise CommandError(f"no stack runs on {data_dir}; start one with `meshyard up`, or give --url")
        patience_seconds = LOCAL_PATIENCE_SECONDS if url is None else 0.0
        url, key_file = url or stack.gateway, key_file or Path(stack.key_file)
    if not url.startswith(("http://", "https://")):
        raise UsageError("--url", f"{url!r} is no address; give http://host:port")
    return Target(url=url.rstrip("/"), key=read_key(key_file), patience_seconds=patience_seconds)


def read_key(key_file: Path) -> str:
    """The API key in a file. Raises UsageError."""
    try:
        key = key_file.expanduser().read_text().strip()
    except OSError as error:
        raise UsageError(
            "--key-file", f"{key_file}: {error.strerror}; name the file that holds your API key"
        ) from error
    if not key.isascii() or not key or " " in key:
        raise UsageError("--key-file", f"{key_file} holds no API key")
    return key
