"""Dead letters as operators see them: reading, choosing, and what sends them on their way again."""

import fnmatch
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from gateway.cli.errors import UsageError

if TYPE_CHECKING:
    from schemas.codec import Codec
    from streams.kafka.producer import Outgoing
    from streams.kafka.settings import KafkaSettings

Record = dict[str, Any]

FILTERS: Final = ("reason", "kind", "topic", "role", "user", "job", "stage")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)([smhd])\Z")


@dataclass(frozen=True, kw_only=True)
class Letter:
    """A dead letter. name: partition/offset on jobs.dead; record: the DeadLetter; action: the newest DeadLetterAction
    about it, None while nobody has handled it."""

    name: str
    record: Record
    action: Record | None = None

    @property
    def job(self) -> Record | None:
        """What failed for good; None for a record that could not be used."""
        job: Record | None = self.record["job"]
        return job

    @property
    def kind(self) -> str:
        """`job` or `record`."""
        return "record" if self.job is None else "job"

    @property
    def subject(self) -> str:
        """What is dead: a job's id, or where a record stood. The same for a letter that was written twice."""
        record = self.record
        if self.job is not None:
            return str(self.job["job_id"])
        return f"{record['topic']}/{record['partition']}/{record['offset']}"

    def field(self, name: str) -> str:
        """One of FILTERS, empty where the letter has none."""
        if name in ("reason", "topic", "role"):
            return str(self.record[name])
        if name == "kind":
            return self.kind
        key = {"user": "user_id", "job": "job_id", "stage": "stage"}[name]
        return str(self.job[key]) if self.job is not None else ""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which letters are meant. names: empty for all; filters: (field, pattern with * and ?), all must match; since_ms,
    until_ms: by the letter's time; handled: those with an action too."""

    names: tuple[str, ...] = ()
    filters: tuple[tuple[str, str], ...] = ()
    since_ms: int | None = None
    until_ms: int | None = None
    handled: bool = False

    def takes(self, letter: Letter) -> bool:
        """Whether a letter is among them."""
        at = letter.record["at"]
        return (
            (self.handled or letter.action is None)
            and (not self.names or letter.name in self.names)
            and (self.since_ms is None or at >= self.since_ms)
            and (self.until_ms is None or at < self.until_ms)
            and all(fnmatch.fnmatchcase(letter.field(name), pattern) for name, pattern in self.filters)
        )


def parse_filter(text: str) -> tuple[str, str]:
    """FIELD=PATTERN. Raises ValueError with the remedy."""
    name, equals, pattern = text.partition("=")
    if not equals or not pattern:
        raise ValueError(f"{text!r} has no pattern; give FIELD=PATTERN, for example reason=timeout")
    if name not in FILTERS:
        raise ValueError(f"{name!r} is no field of a letter; there are {', '.join(FILTERS)}")
    return name, pattern


def parse_time(text: str, now_ms: int) -> int:
    """Milliseconds since 1970 of `90s`, `15m`, `1h`, `2d` ago, or of a date (UTC where it names no zone). Raises
    ValueError with the remedy."""
    found = _DURATION.match(text)
    if found is not None:
        return now_ms - int(float(found[1]) * _UNITS[found[2]] * 1000)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no time; give 90s, 15m, 1h, 2d or a date such as 2026-01-31T12:00") from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def read_letters(settings: "KafkaSettings", codec: "Codec", choice: Choice) -> Iterator[Letter]:
    """The chosen letters, oldest first; one that was written twice comes once. Raises KafkaException."""
    from schemas.topics import DEAD, DEAD_ACTIONS
    from streams.kafka.consumer import partition_count, read_all

    actions: dict[str, Record] = {}
    for message in read_all(settings, DEAD_ACTIONS, range(partition_count(settings, DEAD_ACTIONS))):
        action = codec.decode(_bytes(message.value()), "dead_letter_action")
        actions[action["letter"]] = action
    seen: set[tuple[str, str, str]] = set()
    for message in read_all(settings, DEAD, range(partition_count(settings, DEAD))):
        name = f"{message.partition()}/{message.offset()}"
        record = codec.decode_large(_bytes(message.value()), "dead_letter")
        letter = Letter(name=name, record=record, action=actions.get(name))
        # Jobs sent again (with another id) die anew; a record that was sent again stands elsewhere.
        identity = (letter.kind, letter.subject, record["role"] if letter.kind == "record" else "")
        if identity in seen:
            continue
        seen.add(identity)
        if choice.takes(letter):
            yield letter


def _bytes(value: str | bytes | None) -> bytes | None:
    return value if isinstance(value, bytes) else None


def unknown_names(choice: Choice, found: Sequence[Letter]) -> list[str]:
    """Letters that were named but not found."""
    names = {letter.name for letter in found}
    return [name for name in choice.names if name not in names]


class CannotRetry(Exception):
    """A letter that holds nothing that could be sent again."""

    def __init__(self, letter: Letter, why: str) -> None:
        self.letter = letter
        super().__init__(f"{letter.name}: {why}; discard it")


def sent_again(letter: Letter, codec: "Codec", server_key: bytes | None, now_ms: int) -> "tuple[Outgoing, str | None]":
    """What to send for a letter, and the new job's id, None for a record. Raises CannotRetry, CodecError."""
    from gateway.ids import SIGNATURE_HEADER, signature
    from schemas.pipelines import PIPELINES
    from schemas.topics import requests_topic
    from streams.kafka.producer import Outgoing, tracing_headers

    record, job = letter.record, letter.job
    if not record["value"]:
        raise CannotRetry(letter, "it holds no bytes")
    if job is None:
        if record["partition"] < 0:
            raise CannotRetry(letter, "it does not say where its record stood")
        try:
            key = record["key"].decode() if record["key"] is not None else None
        except UnicodeDecodeError as error:
            raise CannotRetry(letter, "its record's key is no text") from error
        return Outgoing(record["topic"], key, record["value"], record["partition"]), None
    old = codec.decode_large(record["value"], "job_requested")
    pipeline = PIPELINES.get(old["pipeline_id"])
    first = pipeline.stages[0].name if pipeline is not None else job["stage"]
    request = repeated(old, job, letter.name, first_stage=first, now_ms=now_ms)
    value = codec.encode("job_requested", request)
    headers = tracing_headers(request)
    if server_key is not None:
        headers.append((SIGNATURE_HEADER, signature(server_key, value)))
    return Outgoing(requests_topic(request["workflow"]), request["user_id"], value, -1, headers), request["job_id"]


def repeated(old: Mapping[str, Any], job: Mapping[str, Any], letter: str, *, first_stage: str, now_ms: int) -> Record:
    """The request of a job that repeats a dead one, from the failed stage on with the earlier stages' artefacts.

    Its id follows from the letter, so a retry that is told twice makes one job. Over the rate limit it waits, since
    its user did not ask for it just now; times that the old one was to keep are past and left out.
    """
    resumes = job["stage"] != first_stage and bool(job["artefacts"])
    return {
        **old,
        "request_id": str(uuid.uuid4()),
        "job_id": str(uuid.uuid5(uuid.UUID(job["job_id"]), f"retry/{letter}")),
        "created_at": now_ms,
        "traceparent": job["traceparent"] or old["traceparent"],
        "run_at": None,
        "debounce_key": None,
        "debounce_seconds": None,
        "on_limit": "wait",
        "max_queue_depth": None,
        "key_id": None,
        "retry_of": job["job_id"],
        "resume": {"stage": job["stage"], "artefacts": job["artefacts"]} if resumes else None,
    }


def action_record(letter: Letter, action: str, *, job_id: str | None, by: str, reason: str, at: int) -> Record:
    """The DeadLetterAction of what was done."""
    return {"letter": letter.name, "action": action, "job_id": job_id, "by": by, "reason": reason, "at": at}


def check_named(names: Sequence[str]) -> None:
    """Raises UsageError for a name that no letter can have."""
    for name in names:
        partition, slash, offset = name.partition("/")
        if not slash or not (partition.isascii() and partition.isdigit() and offset.isascii() and offset.isdigit()):
            raise UsageError("LETTER", f"{name!r} names none; `meshyard dlq list` shows their names, such as 0/17")
