"""`meshyard dlq list|show|retry|discard`: what could not be done, and what becomes of it."""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from gateway.cli.broker import ExclusiveWriter, add_broker, add_operator, broker_errors, kafka_settings, server_key
from gateway.cli.errors import CommandError, UsageError
from gateway.cli.letters import (
    FILTERS,
    CannotRetry,
    Choice,
    Letter,
    action_record,
    check_named,
    parse_filter,
    parse_time,
    read_letters,
    sent_again,
    unknown_names,
)

if TYPE_CHECKING:
    from schemas.codec import Codec
    from streams.kafka.settings import KafkaSettings

HELP = "list, show, retry or discard dead letters"
_AT_ONCE: Final = 200  # letters that one transaction handles
_SHOWN_BYTES: Final = 512


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=type(parser))
    told = {
        "list": "the letters that nobody has handled",
        "show": "one letter whole, with what it holds",
        "retry": "send jobs and records again",
        "discard": "mark letters as handled",
    }
    for name, text in told.items():
        action = actions.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if name == "show":
            action.add_argument("letters", nargs=1, metavar="LETTER", help="its name, as `meshyard dlq list` shows it")
        else:
            action.add_argument("letters", nargs="*", metavar="LETTER", help="names, as `meshyard dlq list` shows them")
            _add_choice(action)
        if name in ("retry", "discard"):
            action.add_argument("--dry-run", action="store_true", help="only say which letters are meant")
            add_operator(action)
        else:
            action.add_argument("--json", action="store_true", help="print JSON")
        if name == "list":
            action.add_argument("--all", action="store_true", help="those that were handled, too")
            action.add_argument("--limit", type=int, default=100, metavar="N", help="the newest N at most (100)")
        add_broker(action)


def _add_choice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--filter",
        action="append",
        default=[],
        type=_filter,
        metavar="FIELD=PATTERN",
        help=f"only these; fields are {', '.join(FILTERS)}; * and ? stand for any text; repeatable",
    )
    parser.add_argument("--since", type=_time, metavar="TIME", help="not older than 90s, 15m, 1h, 2d or a date")
    parser.add_argument("--until", type=_time, metavar="TIME", help="older than that")


def _filter(text: str) -> tuple[str, str]:
    try:
        return parse_filter(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _time(text: str) -> int:
    try:
        return parse_time(text, _now_ms())
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _now_ms() -> int:
    return int(time.time() * 1000)


def choice_of(arguments: argparse.Namespace) -> Choice:
    """The letters that the arguments mean. Raises UsageError."""
    check_named(arguments.letters)
    looking = arguments.action in ("list", "show")
    choice = Choice(
        names=tuple(arguments.letters),
        filters=tuple(getattr(arguments, "filter", ())),
        since_ms=getattr(arguments, "since", None),
        until_ms=getattr(arguments, "until", None),
        handled=bool(getattr(arguments, "all", False)) or bool(arguments.letters),
    )
    if not looking and choice == Choice():
        raise UsageError("LETTER", "none given; name letters, or choose by --filter or --since (`--filter reason=*`)")
    return choice


def run(arguments: argparse.Namespace) -> int:
    """Look or act."""
    choice = choice_of(arguments)
    settings = kafka_settings(arguments)

    from schemas.codec import Codec
    from schemas.registry import registry_from_url

    codec = Codec(registry_from_url(settings.registry_url))
    with broker_errors(settings):
        if arguments.action == "list":
            return _list(list(read_letters(settings, codec, choice)), arguments)
        if arguments.action == "show":
            return _show(_named(settings, codec, choice)[0], codec, as_json=arguments.json)
        return _act(settings, codec, choice, arguments)


def _named(settings: "KafkaSettings", codec: "Codec", choice: Choice) -> list[Letter]:
    """The chosen letters. Raises CommandError for a name that no letter has."""
    found = list(read_letters(settings, codec, choice))
    missing = unknown_names(choice, found)
    if missing and not choice.filters and choice.since_ms is None and choice.until_ms is None:
        raise CommandError(f"no letter {', '.join(missing)}; `meshyard dlq list --all` shows their names")
    return found


# ---- acting -----------------------------------------------------------------------------------------------------


def _act(settings: "KafkaSettings", codec: "Codec", choice: Choice, arguments: argparse.Namespace) -> int:
    """Retries or discards; each batch of letters with its actions is one transaction, so none is handled by halves."""
    writer = None if arguments.dry_run else ExclusiveWriter(settings, "dlq")
    letters = _named(settings, codec, choice)
    done = [letter for letter in letters if letter.action is not None]
    for letter in done:
        action = letter.action or {}
        sys.stderr.write(f"{letter.name}: handled already ({action['action']} by {action['by']})\n")
    letters = [letter for letter in letters if letter.action is None]
    refused = 0
    for batch in _batches(letters):
        records, lines = [], []
        for letter in batch:
            try:
                found, line = _records(letter, codec, arguments)
            except CannotRetry as error:
                sys.stderr.write(f"{error}\n")
                refused += 1
                continue
            records += found
            lines.append(line)
        if writer is not None and records:
            writer.write(records)
        sys.stdout.write("".join(f"{line}\n" for line in lines))
    if not letters and not done:
        sys.stdout.write("no letters\n")
    return 1 if refused or done else 0


def _records(letter: Letter, codec: "Codec", arguments: argparse.Namespace) -> tuple[list[Any], str]:
    """What is written for a letter, and the line that says so. Raises CannotRetry."""
    from schemas.errors import CodecError
    from schemas.topics import DEAD_ACTIONS
    from streams.kafka.producer import Outgoing

    at, job_id, records = _now_ms(), None, []
    line = f"{letter.name} {letter.kind} {letter.subject}: discarded"
    if arguments.action == "retry":
        try:
            outgoing, job_id = sent_again(letter, codec, server_key(arguments), at)
        except CodecError as error:
            raise CannotRetry(letter, f"its request cannot be read ({error.code})") from error
        records.append(outgoing)
        again = f"new job {job_id}" if job_id is not None else f"sent again to {outgoing.topic}"
        line = f"{letter.name} {letter.kind} {letter.subject}: {again}"
    action = action_record(letter, arguments.action, job_id=job_id, by=arguments.by, reason=arguments.reason, at=at)
    records.append(Outgoing(DEAD_ACTIONS, letter.name, codec.encode("dead_letter_action", action)))
    return records, line


def _batches(letters: Sequence[Letter]) -> Iterator[list[Letter]]:
    rest = iter(letters)
    while batch := list(islice(rest, _AT_ONCE)):
        yield batch


# ---- looking ----------------------------------------------------------------------------------------------------


def _list(letters: list[Letter], arguments: argparse.Namespace) -> int:
    if arguments.limit < 1:
        raise UsageError("--limit", f"{arguments.limit} is too small; give at least 1")
    shown = letters[-arguments.limit :]
    if arguments.json:
        sys.stdout.write(json.dumps([_summary(letter) for letter in shown], indent=1) + "\n")
        return 0
    from rich.console import Console
    from rich.table import Table

    table = Table("letter", "at", "kind", "reason", "what", "stage", "tries", "detail")
    if arguments.all:
        table.add_column("handled")
    for letter in shown:
        found = _summary(letter)
        row = [found[name] for name in ("letter", "at", "kind", "reason", "subject", "stage", "attempts", "detail")]
        if arguments.all:
            action = letter.action
            row.append("" if action is None else f"{action['action']} by {action['by']}")
        table.add_row(*(str(cell) for cell in row))
    console = Console(soft_wrap=True)
    console.print(table if shown else "no letters", markup=False)
    if len(letters) > len(shown):
        console.print(f"{len(letters) - len(shown)} older ones are not shown; give --limit or --filter")
    return 0


def _summary(letter: Letter) -> dict[str, Any]:
    from gateway.jobs import iso

    record, job = letter.record, letter.job
    return {
        "letter": letter.name,
        "at": iso(record["at"]),
        "kind": letter.kind,
        "reason": record["reason"],
        "subject": letter.subject,
        "user_id": job["user_id"] if job is not None else None,
        "stage": job["stage"] if job is not None else "",
        "attempts": record["attempts"],
        "role": record["role"],
        "topic": record["topic"],
        "detail": record["detail"],
        "action": letter.action,
    }


def _show(letter: Letter, codec: "Codec", *, as_json: bool) -> int:
    record, job = letter.record, letter.job
    found = _summary(letter) | {
        "partition": record["partition"],
        "offset": record["offset"],
        "key": _text(record["key"]),
        "schema_id": record["schema_id"],
        "bytes": len(record["value"] or b""),
        "job": job,
        "holds": _content(record["value"], codec),
    }
    if as_json:
        sys.stdout.write(json.dumps(found, indent=1) + "\n")
        return 0
    for name, value in found.items():
        told = json.dumps(value, indent=1) if isinstance(value, dict) else value
        if told not in (None, ""):
            sys.stdout.write(f"{name}: {told}\n")
    return 0


def _content(value: bytes | None, codec: "Codec") -> Any:
    """What a letter's bytes say: the record, where they are one, else their beginning in hexadecimal digits."""
    from schemas.errors import CodecError

    try:
        return _plain(codec.decode_large(value))
    except CodecError:
        start = (value or b"")[:_SHOWN_BYTES]
        return start.hex(" ") + (" ..." if value is not None and len(value) > _SHOWN_BYTES else "")


def _plain(value: Any) -> Any:
    """Bytes as text, so that it is JSON."""
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="replace")
